"""What a config leaves open is decided once and saved, and a run finds its data again where it has moved."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

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
    record = json.loads(Path(run, "run.json").read_text())
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
    start = (*FOLDER, f"data.root={pairs}", "trainer.epochs=2", "name=a", "resume=auto")
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
