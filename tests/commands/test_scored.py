"""Which images are scored is never a surprise: other data than the run's are scored whole, files that have
come since the training do not move the known ones, and what the run was trained on is counted."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segtrain.cli import main as cli
from segtrain.commands.resume import fingerprints
from segtrain.commands.scored import scored_split
from segtrain.data import DATA

QUICK = ["device=cpu", "threads=1", "model.widths=[4,8]", "augmentation=none", "loader.batch_size=2"]
QUICK += ["loader.workers=0", "evaluate.workers=0", "evaluate.pictures=0", "trainer.steps=1"]


def write(write_pair, root, names, seed=0):
    """Pairs of 32×32 pixels; a twentieth of the last row has no label."""
    rng = np.random.default_rng(seed)
    for name in names:
        mask = (np.arange(32 * 32, dtype=np.uint8) % 3).reshape(32, 32)
        mask[-1] = 255
        write_pair(root, name, rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), mask)


@pytest.fixture
def write_names(write_pair):
    return functools.partial(write, write_pair)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the pairs `own`, and with a run on them in outputs/r."""
    folder = tmp_path_factory.mktemp("trained")

    def write_pair(root, name, image, mask):
        for kind, array in (("images", image), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / kind / f"{name}.png")

    write(write_pair, folder / "own", [f"{letter}x" for letter in "abcdef"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["train", *QUICK, "data=folder", "data.root=own", "name=r"]) == 0
    return folder


@pytest.fixture
def run(tmp_path, trained, monkeypatch, capsys):
    """A copy of the run, `outputs/r`, beside its six random pairs in `own`."""
    monkeypatch.chdir(tmp_path)
    for name in ("own", "outputs"):
        shutil.copytree(trained / name, tmp_path / name, symlinks=True)
    record = json.loads(Path("outputs/r/run.json").read_text())
    Path("outputs/r/run.json").write_text(json.dumps({**record, "directory": str(tmp_path)}))
    capsys.readouterr()
    return tmp_path / "outputs" / "r"


@pytest.fixture
def scored(run, capsys):
    """scored("split=all"): what evaluate printed, and the protocol that it saved."""

    def call(*words):
        code = cli.main(
            ["evaluate", "run=outputs/r", "device=cpu", "output=out", "evaluate.workers=0", *words]
        )
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out, json.loads(Path("out/scores.json").read_text())["protocol"]

    return call


def test_the_runs_own_data_are_scored_on_val(scored):
    printed, protocol = scored()
    images, pixels = protocol["images"], protocol["pixels"]
    assert protocol["split"] == "val" and 1 <= images <= 4 and pixels == images * 31 * 32
    assert f"{images} image" in printed and f"of split val, {pixels} labelled pixels" in printed
    assert "data  " not in printed and "split  " not in printed


def test_another_folder_is_scored_whole_and_said(scored, tmp_path, write_names):
    """Even where its images have the names of those of the run."""
    write_names(tmp_path / "other", [f"{letter}x" for letter in "abcdef"], seed=1)
    for words in (
        ("data.root=other",),
        ("data.images=other/images", "data.masks=other/masks", "data.root=null"),
    ):
        printed, protocol = scored(*words)
        assert (protocol["split"], protocol["images"], protocol["pixels"]) == ("all", 6, 6 * 31 * 32)
        assert "split     all, the default for other data than outputs/r was trained on" in printed
        assert "trained on:" not in printed
    assert scored("data.root=other", "split=val")[1]["images"] < 6


def test_another_folder_with_a_test_split_is_scored_on_that(scored, tmp_path, write_names):
    for split, count in (("train", 1), ("val", 1), ("test", 2)):
        write_names(tmp_path / "other", [f"{split}/{number}" for number in range(count)], seed=1)
    printed, protocol = scored("data.root=other")
    assert (protocol["split"], protocol["images"]) == (
        "test",
        2,
    ) and "split     test, the default for other data" in printed


def test_a_single_image_can_be_scored(scored, tmp_path, write_names):
    write_names(tmp_path / "other", ["z"], seed=1)
    assert scored("data.root=other")[1]["images"] == 1


def test_moved_data_are_the_runs_own(scored, tmp_path):
    before = scored()[1]
    shutil.move(tmp_path / "own", tmp_path / "moved")
    printed, protocol = scored("data.root=moved")
    assert [protocol[key] for key in ("split", "images")] == ["val", before["images"]]
    assert "split  " not in printed and "data  " not in printed


def test_new_files_are_reported_and_no_training_image_becomes_validation(scored, tmp_path, write_names):
    before = scored()[1]["images"]
    write_names(tmp_path / "own", [f"{number}y" for number in range(20)], seed=2)
    printed, protocol = scored()
    assert "20 images are new or changed since the training: " in printed and "in val" in printed
    assert before < protocol["images"] < 20 and "trained on:" not in printed
    printed, protocol = scored("split=all")
    assert protocol["images"] == 26
    assert f"warning: {6 - before} of 26 images are training images of outputs/r" in printed


def test_an_evaluation_that_fails_leaves_no_folder(run):
    words = ["evaluate", "run=outputs/r", "device=cpu", "evaluate.workers=0"]
    assert cli.main([*words, "predictor.ensemble=outputs/none"]) == 2
    next(Path("own/images").iterdir()).parent.rename("own/gone")
    assert cli.main(words) == 2
    assert not list((run / "evaluate").glob("*"))
    Path("own/gone").rename("own/images")
    assert cli.main(words) == 0 and [one.name for one in (run / "evaluate").iterdir()] == ["val-1"]


def test_a_changed_image_is_new(scored, tmp_path, write_names):
    write_names(tmp_path / "own", ["ax"], seed=3)
    assert "1 image is new or changed since the training: 1 in" in scored()[0]


def test_images_of_the_training_in_another_folder_are_counted(scored, tmp_path, write_names):
    write_names(tmp_path / "other", [f"{number}z" for number in range(8)], seed=4)
    saved = yaml.safe_load(Path("outputs/r/config.yaml").read_text())["data"]
    image = Path(DATA.build(saved).splits["train"].name(0))
    for kind in ("images", "masks"):
        shutil.copy(tmp_path / "own" / kind / image.name, tmp_path / "other" / kind)
    printed, protocol = scored("data.root=other")
    assert (protocol["split"], protocol["images"]) == ("all", 9)
    assert "warning: 1 of 9 images are training images of outputs/r" in printed


@pytest.mark.parametrize("option", ["data.val_fraction=0.5", "data.test_fraction=0.2", "data.split_seed=3"])
def test_options_of_the_random_split_are_not_ignored(scored, option, capsys):
    """The run's split is kept, unless another one is asked for."""
    assert cli.main(["evaluate", "run=outputs/r", option]) == 2
    message = capsys.readouterr().err
    key, value = option.split("=")
    assert f"{key}={value} changes nothing: the run keeps the random split" in message
    assert "add data.split_bounds=null" in message
    assert (
        scored(option, "data.split_bounds=null")[1]["data"]["split_bounds"]
        != scored()[1]["data"]["split_bounds"]
    )


def test_one_of_several_data_sets_is_scored_on_its_own_val(tmp_path, write_names):
    """Those that are left out make no other data of the rest, whose images the run knows."""
    for number, root in enumerate(("a", "b")):
        write_names(
            tmp_path / root, [f"train/{letter}{number}" for letter in "xyz"] + [f"val/{number}"], number
        )
    folder = {"name": "folder", "classes": ["p", "q", "r"]}
    sets = {root: {**folder, "root": str(tmp_path / root)} for root in ("a", "b")}
    saved = {"name": "concat", "sets": sets, "classes": ["p", "q", "r"]}
    run = {"config": {"data": saved}, "samples": fingerprints(DATA.build(saved))}

    def scored(split, **changed):
        options = {**saved, "sets": {**sets, **changed}}
        return scored_split({"data": options, "split": split}, DATA.build(options), run, "r")

    found = scored(None, b=None)
    assert (found.name, len(found.split), found.lines) == ("val", 1, [])
    assert "3 of 4 images are training images" in scored("all", b=None).lines[0]


def test_labels_of_a_single_class_are_told(scored, tmp_path, write_pair, capsys):
    """A network that always predicts it scores 1."""
    rng = np.random.default_rng(0)
    for name in "xyz":
        mask = np.full((32, 32), 1, np.uint8)
        mask[:4] = 255
        write_pair(tmp_path / "one", name, rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), mask)
    printed, protocol = scored("data.root=one")
    assert protocol["only_class"] == "class_1"
    assert "2688 labelled pixels, all of class class_1: a network that always predicts it scores 1" in printed
    assert scored()[1]["only_class"] is None


def test_a_single_class_is_told_before_the_training(tmp_path, write_pair, capsys):
    for name in "xyz":
        write_pair(tmp_path / "one", name, np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8))
    DATA.build({"name": "folder", "root": str(tmp_path / "one")})
    assert "warning: with a single class there is nothing to tell apart" in capsys.readouterr().err


def earlier(run):
    """Makes the run's config that of an earlier version."""
    saved = yaml.safe_load((run / "config.yaml").read_text())
    for key in ("split_bounds", "group", "test_list", "test_fraction", "image_suffix"):
        saved["data"].pop(key)
    (run / "config.yaml").write_text(yaml.safe_dump(saved))


def test_a_run_of_an_earlier_version_keeps_its_split(run, scored, capsys):
    earlier(run)
    protocol = scored()[1]
    assert protocol["data"]["split_bounds"] == []
    # default_rng(0).permutation(6)[:1] is 2: the third name is the validation image of earlier versions
    assert protocol["images"] == 1
    words = ["train", *QUICK, "data=folder", "data.root=own", "name=r", "resume=auto"]
    assert cli.main(words) == 0, capsys.readouterr().err


def test_compare_says_what_it_scored(run, capsys, tmp_path, write_names):
    write_names(tmp_path / "other", [f"{number}z" for number in range(3)], seed=4)
    words = ["compare", "runs=[outputs/r,outputs/r]", "device=cpu", "evaluate.workers=0"]
    assert cli.main([*words, "data.root=other"]) == 0
    printed = capsys.readouterr().out
    assert (
        "split     all, the default for other data" in printed
        and f"3 images of split all, {3 * 31 * 32} labelled" in printed
    )
    assert cli.main([*words, "split=all"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("images are training images of outputs/r") == 1


def test_of_several_sets_one_is_scored_on_its_validation_images(tmp_path, write_names, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder, names in (("one", "abcdef"), ("two", "uvwxyz")):
        write_names(Path(folder), [f"{letter}x" for letter in names], ord(names[0]))
    sets = "data.sets={one:{name:folder,root:one},two:{name:folder,root:two}}"
    mapping = "data.class_map={two:{class_2:class_1}}"
    assert cli.main(["train", *QUICK, "data=concat", sets, mapping, "data.classes=null", "name=both"]) == 0
    num_val = len(DATA.build({"name": "folder", "root": "one"}).splits["val"])
    capsys.readouterr()
    assert cli.main(["evaluate", "run=outputs/both", "device=cpu", "data.sets.two=null"]) == 0
    told = capsys.readouterr().out
    assert f"{num_val} image{'s' * (num_val > 1)} of split val" in told and "changed" not in told
    assert cli.main(["evaluate", "run=outputs/both", "device=cpu", "data.sets.two=null", "split=all"]) == 0
    assert f"warning: {6 - num_val} of 6 images are training images" in capsys.readouterr().out
