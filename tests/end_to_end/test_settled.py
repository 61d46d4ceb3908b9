"""What a config leaves open is decided once and saved, and a run finds its data again where it has moved."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segtrain.predictor.mask import load

QUICK = ("device=cpu", "model.widths=[4,8]", "augmentation=none", "loader.batch_size=2", "loader.workers=0")
QUICK += ("evaluate.workers=0", "evaluate.pictures=0")
FOLDER = ("train", "data=folder", *QUICK)


@pytest.fixture
def pairs(tmp_path) -> Path:
    """A folder of five training and one validation pair with the values 0, 1 and 2."""
    rng = np.random.default_rng(0)
    root = tmp_path / "pairs"
    for part, count in (("train", 5), ("val", 1)):
        for kind in ("images", "masks"):
            (root / kind / part).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "images" / part / f"a{10 * i}.png")
            Image.fromarray(np.arange(32 * 32, dtype=np.uint8).reshape(32, 32) % 3).save(
                root / "masks" / part / f"a{10 * i}.png"
            )
    return root


def config_of(run: str) -> dict:
    return yaml.safe_load(Path(run, "config.yaml").read_text())


def unfinished(run: str, step: int) -> None:
    """Takes the run back to its checkpoint of `step`."""
    for link in ("last", "best"):
        Path(run, "checkpoints", link).unlink(missing_ok=True)
    for folder in Path(run, "checkpoints").glob("[0-9]*"):
        if int(folder.name) > step:
            shutil.rmtree(folder)
    os.symlink(str(step), Path(run, "checkpoints", "last"))
    record = json.loads(Path(run, "run.json").read_bytes())
    Path(run, "run.json").write_text(json.dumps({**record, "exit_code": 143, "scores": None}))


def test_what_was_decided_is_saved_and_said(segtrain, pairs):
    words = ("trainer.epochs=2", "trainer.evaluate_every=1ep", "trainer.memory_format=auto")
    result = segtrain(*FOLDER, f"data.root={pairs}", *words, "name=a")
    assert result.code == 0, result.err
    saved = config_of("outputs/a")
    trainer = saved["trainer"]
    assert (trainer["steps"], trainer["epochs"], trainer["evaluate_every"]) == (5, 2.0, 2)
    assert trainer["memory_format"] in ("contiguous", "channels_last")
    assert saved["data"]["classes"] == ["class_0", "class_1", "class_2"]
    assert "settled   trainer.steps=5 trainer.evaluate_every=2 trainer.memory_format=" in result.out
    description = json.loads(Path("outputs/a/checkpoints/5/description.json").read_text())
    assert description["config"] == saved


def test_a_dry_run_settles_too_and_saves_nothing(segtrain, pairs, tmp_path):
    result = segtrain(*FOLDER, f"data.root={pairs}", "trainer.epochs=2", "dry_run=true")
    assert result.code == 0, result.err
    assert "trainer.steps=5" in result.out and "data.classes=[class_0,class_1,class_2]" in result.out
    assert not Path("outputs").exists()


def test_both_lengths_must_agree(segtrain, pairs):
    refused = segtrain(*FOLDER, f"data.root={pairs}", "trainer.epochs=2", "trainer.steps=7", "name=a")
    refused.refused("trainer.steps is 7 and trainer.epochs is 2.0 (5 steps)", "set the other to null")
    assert not Path("outputs/a").exists()
    assert segtrain(*FOLDER, f"data.root={pairs}", "trainer.epochs=2", "trainer.steps=5", "name=a").code == 0


def test_more_samples_do_not_change_the_length_of_a_resumed_run(segtrain, pairs):
    start = (
        *FOLDER,
        f"data.root={pairs}",
        "trainer.epochs=2",
        "name=a",
        "resume=auto",
        "trainer.evaluate_every=1ep",
    )
    assert segtrain(*start).code == 0
    unfinished("outputs/a", 4)
    for kind in ("images", "masks"):
        shutil.copy(pairs / kind / "train" / "a0.png", pairs / kind / "train" / "b0.png")
    result = segtrain(*start)
    assert result.code == 0, result.err
    assert "no longer that of the checkpoint (train: 5 samples then, 6 now)" in result.out
    assert config_of("outputs/a")["trainer"]["steps"] == 5
    assert "outputs/a: step 5" in result.out


def test_a_run_goes_on_where_its_data_has_moved(segtrain, pairs, tmp_path, monkeypatch):
    start = (*FOLDER, f"data.root={pairs}", "trainer.steps=5", "trainer.evaluate_every=2", "name=a")
    assert segtrain(*start).code == 0
    whole = Path("outputs/a/checkpoints/5/model.safetensors").read_bytes()
    unfinished("outputs/a", 4)
    moved = tmp_path / "job-17"
    shutil.move(pairs, moved)
    result = segtrain("train", "resume=outputs/a", f"data.root={moved}")
    assert result.code == 0, result.err
    assert "data.root changed; the samples are the same by number, names and content" in result.out
    assert Path("outputs/a/checkpoints/5/model.safetensors").read_bytes() == whole
    assert config_of("outputs/a")["data"]["root"] == str(moved)


@pytest.mark.parametrize("change", ["content", "names", "number"])
def test_a_run_does_not_go_on_with_other_data_of_another_place(segtrain, pairs, tmp_path, change):
    start = (*FOLDER, f"data.root={pairs}", "trainer.steps=5", "trainer.evaluate_every=2", "name=a")
    assert segtrain(*start).code == 0
    unfinished("outputs/a", 4)
    saved = Path("outputs/a/config.yaml").read_bytes()
    other = tmp_path / "other"
    shutil.copytree(pairs, other)
    for kind in ("images", "masks"):
        folder = other / kind / "train"
        if change == "names":
            (folder / "a0.png").rename(folder / "z0.png")
        elif change == "number":
            (folder / "a0.png").unlink()
    if change == "content":
        Image.new("RGB", (32, 32)).save(other / "images" / "train" / "a0.png")
    words = {"content": "other content", "names": "other names", "number": "5 samples then, 4 now"}
    refused = segtrain("train", "resume=outputs/a", f"data.root={other}")
    refused.refused(f"data.root={other} does not hold the samples", words[change])
    assert Path("outputs/a/config.yaml").read_bytes() == saved


def test_relative_paths_begin_where_the_run_was_started(segtrain, pairs, tmp_path, monkeypatch):
    start = (*FOLDER, "data.root=pairs", "trainer.steps=5", "trainer.evaluate_every=2", "name=a")
    assert segtrain(*start).code == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert segtrain("evaluate", "run=../outputs/a").code == 0
    assert segtrain("compare", "runs=[../outputs/a]").code == 0
    unfinished("../outputs/a", 4)
    assert segtrain("train", "resume=../outputs/a").code == 0
    assert config_of("../outputs/a")["data"]["root"] == str(pairs)


def test_paths_below_the_root_stay_below_it_elsewhere(segtrain, pairs, tmp_path, monkeypatch):
    decoys = {"images": Image.new("RGB", (32, 32)), "masks": Image.new("L", (32, 32))}
    for kind, decoy in decoys.items():
        for image in (pairs / kind).rglob("*.png"):
            other = tmp_path / kind / image.relative_to(pairs / kind)
            other.parent.mkdir(parents=True, exist_ok=True)
            decoy.save(other)
    below = ("data.root=pairs", "data.images=images", "data.masks=masks")
    start = (*FOLDER, *below, "trainer.steps=5", "trainer.evaluate_every=2", "name=a")
    assert segtrain(*start).code == 0
    unfinished("outputs/a", 4)
    monkeypatch.chdir(tmp_path / "masks")
    result = segtrain("evaluate", "run=../outputs/a")
    assert result.code == 0, result.err
    assert "present 3" in result.out
    result = segtrain("train", "resume=../outputs/a")
    assert result.code == 0, result.err
    assert config_of("../outputs/a")["data"]["images"] == "images"


def test_a_start_that_fails_elsewhere_leaves_the_run_where_it_was(segtrain, pairs, tmp_path, monkeypatch):
    start = (*FOLDER, "data.root=pairs", "trainer.steps=5", "trainer.evaluate_every=2", "name=a")
    assert segtrain(*start).code == 0
    unfinished("outputs/a", 4)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    segtrain("train", "resume=../outputs/a", "data.root=none").refused("data.root is 'none'")
    assert segtrain("evaluate", "run=../outputs/a").code == 0
    assert segtrain("train", "resume=../outputs/a").code == 0
    assert json.loads(Path("../outputs/a/run.json").read_text())["directory"] == os.getcwd()


def test_the_second_network_is_found_from_elsewhere(segtrain, pairs, tmp_path, monkeypatch):
    words = (*FOLDER, "data.root=pairs", "trainer.steps=5", "trainer.evaluate_every=2")
    assert segtrain(*words, "name=a").code == 0
    assert segtrain(*words, "name=b", "predictor.ensemble=[outputs/a]").code == 0
    unfinished("outputs/b", 4)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert segtrain("evaluate", "run=../outputs/b", "checkpoint=last").code == 0
    image = pairs / "images" / "val" / "a0.png"
    assert segtrain("predict", "run=../outputs/b", f"input={image}", "output=out", "device=cpu").code == 0
    assert load("../outputs/b")(str(image)).shape == (32, 32)
    result = segtrain("train", "resume=../outputs/b")
    assert result.code == 0, result.err


def test_a_run_goes_on_with_other_options_for_the_same_samples(segtrain, pairs):
    words = ("trainer.steps=5", "trainer.evaluate_every=2", "name=a")
    assert segtrain(*FOLDER, "data.root=pairs", *words).code == 0
    unfinished("outputs/a", 4)
    places = ("data.root=null", "data.images=pairs/images", "data.masks=pairs/masks")
    result = segtrain("train", "resume=outputs/a", *places)
    assert result.code == 0, result.err
    assert "data.root, data.images, data.masks changed; the samples are the same" in result.out
    saved = config_of("outputs/a")["data"]
    assert (saved["root"], saved["images"]) == (None, "pairs/images")
    assert saved["classes"] == ["class_0", "class_1", "class_2"]


def test_lists_that_are_not_typed_again_are_not_taken_over(segtrain, pairs):
    for part, line in (("train", "train/a0.png"), ("val", "train/a10.png")):
        Path(f"{part}.txt").write_text(f"{line}\n")
    lists = ("data.train_list=train.txt", "data.val_list=val.txt")
    words = (*FOLDER, "data.root=pairs", "trainer.steps=5", "trainer.evaluate_every=2", "name=a")
    assert segtrain(*words, *lists).code == 0
    unfinished("outputs/a", 4)
    segtrain(*words, "resume=auto").refused("data.train_list=null does not hold", "1 samples then, 5 now")
    assert segtrain(*words, *lists, "resume=auto").code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_a_run_whose_paths_are_not_utf8_can_be_used(segtrain, pairs, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    shutil.move(pairs, tmp_path / name)
    run = f"{tmp_path / name}/run"
    words = ("trainer.steps=5", "trainer.evaluate_every=2", f"hydra.run.dir={run}")
    result = segtrain(*FOLDER, f"data.root={name}", *words)
    assert result.code == 0, result.err
    assert config_of(run)["data"]["root"] == name
    assert segtrain("evaluate", f"run={run}").code == 0
    unfinished(run, 4)
    result = segtrain("train", f"resume={run}")
    assert result.code == 0, result.err


def test_stages_that_were_renamed_or_named_by_another_path_go_on(segtrain, tmp_path):
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/two.yaml").write_text(
        "# @package _global_\nstages: [[optimizer.lr=0.01], [optimizer.lr=0.001]]\n"
    )
    shapes = ("data.size=48", "data.num_train=4", "data.num_val=2", "trainer.steps=2", *QUICK)
    words = ("train", "--config-dir", "conf", "experiment=two", *shapes, "resume=auto")
    assert segtrain(*words, "name=a").code == 0
    Path("outputs/a").rename("outputs/b")
    result = segtrain(*words, "name=b")
    assert result.code == 0, result.err
    assert result.out.count("finished before") == 2
    shutil.copytree("outputs/b", "outputs/c", symlinks=True)
    unfinished("outputs/c/stage2", 2)
    assert segtrain(*words, "name=c").code == 0
    result = segtrain(*words, f"hydra.run.dir={tmp_path}/outputs/b")
    assert result.code == 0, result.err


def test_a_typed_null_counts(segtrain, pairs):
    label_map = "data.label_map={0: 0, 1: 1, 2: 1}"
    start = (*FOLDER, f"data.root={pairs}", "data.classes=[sky,rest]", label_map, "trainer.steps=1", "name=a")
    assert segtrain(*start).code == 0
    printed = segtrain("evaluate", "run=outputs/a", "data.label_map=null", "--cfg", "job")
    assert yaml.safe_load(printed.out)["data"]["label_map"] is None
    # Without its label_map the mask value 2 has no class.
    assert segtrain("evaluate", "run=outputs/a", "data.label_map=null").code != 0
    segtrain("evaluate", "run=outputs/a", "data.root=null").refused("data.images and data.masks are missing")


def test_a_data_set_chosen_anew_has_the_classes_that_the_run_found(segtrain, pairs, tmp_path):
    assert segtrain(*FOLDER, f"data.root={pairs}", "trainer.steps=1", "name=a").code == 0
    shutil.copytree(pairs, tmp_path / "other")
    chosen = ("evaluate", "run=outputs/a", "data=folder", "data.root=other")
    printed = yaml.safe_load(segtrain(*chosen, "--cfg", "job").out)["data"]
    assert (printed["classes"], printed["root"]) == (["class_0", "class_1", "class_2"], "other")
    result = segtrain(*chosen)
    assert result.code == 0, result.err
    assert "reading" not in result.err
    scores = json.loads(Path("outputs/a/evaluate/val-1/scores.json").read_text())
    assert scores["protocol"]["data"] == printed


def test_a_relative_path_that_is_here_and_where_the_run_was_started_is_named(
    segtrain, pairs, tmp_path, monkeypatch
):
    start = (*FOLDER, "data.root=pairs", "trainer.steps=1", "name=a")
    assert segtrain(*start).code == 0
    assert "is read below" not in segtrain("evaluate", "run=outputs/a").err
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(pairs, elsewhere / "pairs")
    monkeypatch.chdir(elsewhere)
    result = segtrain("evaluate", "run=../outputs/a")
    assert result.code == 0 and f"root=pairs of the run is read below {elsewhere}" in result.err
    assert str(pairs) in result.err


def test_a_comparison_needs_the_score_that_it_ranks_by(segtrain, pairs):
    assert segtrain(*FOLDER, f"data.root={pairs}", "trainer.steps=1", "name=a").code == 0
    segtrain("compare", "runs=[outputs/a]", "metric=[boundary]").refused(
        "lacks confusion", "use metric=[confusion,boundary]"
    )


def test_a_dry_run_says_the_length_of_the_training_that_it_stands_for(segtrain):
    words = ("data=shapes", "data.size=48", "data.num_train=8", "data.num_val=2", "device=cpu", "model=unet")
    small = ("model.widths=[4,8]", "loader.workers=0", "loader.batch_size=4", "evaluate.workers=0")
    result = segtrain("train", *words, *small, "trainer.epochs=30", "dry_run=true")
    assert result.code == 0
    (plan,) = [line for line in result.out.splitlines() if line.startswith("plan")]
    assert "60 steps of 4 images = 30.0 epochs" in plan and plan.endswith("dry run: one step")
    assert "step 1 of 1:" in result.out + result.err
