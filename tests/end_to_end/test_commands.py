"""train, evaluate and predict as commands: what they write, and what they say when something is wrong."""

import json

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, run
from PIL import Image

from segtrain.data.shapes import shapes
from segtrain.predictor.mask import load

SHAPES = {"size": 48, "num_train": 12, "num_val": 3, "objects": 3}


def test_the_run_folder(finished):
    folder = finished / "outputs" / "first"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (
        config["trainer"]["steps"] == 6
        and config["model"]["widths"] == [4, 8]
        and config["data"]["name"] == "shapes"
    )
    record = json.loads((folder / "run.json").read_text())
    assert record["exit_code"] == 0 and torch.__version__.startswith(record["versions"]["torch"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "val/miou" in line] == [3, 6]
    assert (folder / "checkpoints" / "last").resolve().name == "6"
    assert any(folder.glob("events.*")) and (folder / "report" / "validation.png").stat().st_size > 1000


def test_evaluate_gives_the_trainings_own_score(finished):
    ended = run(
        "evaluate",
        "run=outputs/first",
        "checkpoint=last",
        "evaluate.workers=0",
        "device=cpu",
        "threads=1",
        cwd=finished,
    )
    assert ended.returncode == 0, ended.stderr
    scores = json.loads((finished / "outputs/first/evaluate/val-6/scores.json").read_text())
    lines = [json.loads(line) for line in (finished / "outputs/first/metrics.jsonl").read_text().splitlines()]
    assert scores["miou"] == [line for line in lines if "val/miou" in line][-1]["val/miou"]
    assert set(scores["iou"]) == set(shapes().facts.classes) and scores["protocol"]["images"] == 3
    assert "background" in ended.stdout and "pixel accuracy" in ended.stdout


def test_evaluate_with_flips_on_the_training_split(finished):
    ended = run(
        "evaluate",
        "run=outputs/first",
        "split=train",
        "tta=flip",
        "evaluate.workers=0",
        "output=scored",
        cwd=finished,
    )
    assert ended.returncode == 0, ended.stderr
    scores = json.loads((finished / "scored" / "scores.json").read_text())
    assert (
        scores["protocol"]["split"] == "train"
        and "flip" in scores["protocol"]["tta"]
        and scores["protocol"]["images"] == 12
    )


def test_predict_writes_what_python_gives(finished):
    photos = finished / "photos" / "wüste"
    photos.mkdir(parents=True)
    split = shapes(**SHAPES).splits["val"]
    for i in range(2):
        Image.fromarray(split[i].image).save(photos / f"a photo {i}.png")
    (photos / "broken.png").write_bytes((photos / "a photo 0.png").read_bytes()[:200])
    ended = run(
        "predict",
        "run=outputs/first",
        "input=photos",
        "output=out",
        "probabilities=true",
        "device=cpu",
        "threads=1",
        cwd=finished,
    )
    assert ended.returncode == 3 and "1 of 3 images" in ended.stderr, ended.stderr
    assert (
        "2 masks" in ended.stdout
        and "1 left out" in ended.stdout
        and "broken.png" in ended.stdout + ended.stderr
    )
    mask = load(finished / "outputs" / "first", device="cpu")
    for i in range(2):
        classes = np.asarray(Image.open(finished / "out" / "classes" / "wüste" / f"a photo {i}.png"))
        assert classes.dtype == np.uint8 and np.array_equal(classes, mask(split[i].image))
        assert np.array_equal(classes, mask(str(photos / f"a photo {i}.png")))
        probabilities = np.load(finished / "out" / "probabilities" / "wüste" / f"a photo {i}.npy")
        assert probabilities.shape == (mask.facts.num_classes, 48, 48) and np.allclose(
            probabilities.astype(np.float32).sum(0), 1, atol=5e-3
        )
        colours = np.asarray(Image.open(finished / "out" / "colours" / "wüste" / f"a photo {i}.png"))
        assert np.array_equal(colours, np.asarray(mask.facts.palette, np.uint8)[classes])


def test_a_new_run_from_the_weights_of_another(finished):
    ended = run("train", *TINY, "trainer.steps=1", "init=outputs/first", "loader.workers=0", cwd=finished)
    assert ended.returncode == 0, ended.stderr
    assert f"head rows of {shapes().facts.num_classes} classes copied by name" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("train", "optimizer.lrr=0.1"), 2, ("optimizer.lrr", "did you mean 'lr'")),
        (("train", "trainer.steps=abc"), 2, ("trainer.steps", "'abc'", "integer")),
        (("train", "model=unett"), 2, ("unett", "did you mean 'unet'")),
        (
            ("train", "data=folder", "data.images=nowhere", "data.masks=nowhere"),
            2,
            ("data.images", "nowhere", "not a folder"),
        ),
        (("evaluate", "run=outputs/frist"), 2, ("outputs/frist", "first")),
        (("evaluate", "run=outputs/first", "split=vall"), 2, ("vall", "did you mean 'val'")),
        (
            ("predict", "run=outputs/first", "input=nothing.png", "output=o"),
            2,
            ("nothing.png", "does not exist"),
        ),
        (("train", "device=cuda:7", "trainer.steps=1"), 2, ("cuda:7", "device=auto")),
    ],
)
def test_mistakes_get_one_line(finished, arguments, code, words):
    ended = run(*arguments, cwd=finished)
    assert ended.returncode == code, ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.strip()]
    assert line.startswith("segtrain: error: ") and all(word in line for word in words), line


def test_a_damaged_checkpoint_is_named(finished, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(finished / "outputs" / "first", copy, symlinks=True)
    file = copy / "checkpoints" / "6" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    ended = run("evaluate", f"run={copy}", "checkpoint=6", cwd=tmp_path)
    assert (
        ended.returncode == 4
        and "model.safetensors" in ended.stderr
        and len(ended.stderr.strip().splitlines()) == 1
    )
    ended = run(
        "evaluate", f"run={copy}", "checkpoint=last", "evaluate.workers=0", "device=cpu", cwd=tmp_path
    )
    assert ended.returncode == 0 and "model.safetensors" in ended.stderr, ended.stderr


@pytest.mark.slow
def test_a_run_reads_other_masks_as_it_read_its_own(tmp_path):
    """255 is no label among 0 and 1, and the second class where there is nothing but 0 and 255; a run keeps
    what it found."""
    rng = np.random.default_rng(0)
    for place, values in (("train", (0, 1, 255)), ("other", (0, 255))):
        for i in range(4):
            for kind, pixels in (
                ("images", rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)),
                ("masks", rng.choice(np.array(values, np.uint8), (48, 48))),
            ):
                (tmp_path / place / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / place / kind / f"{i}.png")
    tiny = [word for word in TINY if not word.startswith("data.")]
    names = ("data=folder", "data.root=train", "data.classes=[ground,tree]", "data.val_fraction=0.5")
    ended = run("train", *tiny, *names, "trainer.steps=1", "name=two", "loader.workers=0", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    ended = run(
        "evaluate", "run=outputs/two", "data.root=other", "evaluate.workers=0", "output=scores", cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    # No pixel is labelled tree, so it has no accuracy.
    assert scores["accuracy"]["tree"] is None and scores["protocol"]["data"]["label_map"] == {
        "0": 0,
        "1": 1,
        "255": 255,
    }
