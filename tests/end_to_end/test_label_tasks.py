"""Tasks of labels from the command line: training, resume, scores and predictions at the fitted thresholds."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.predictor.mask import load
from segtrain.train import loop
from segtrain.train.step import train_step

SMALL = (
    "device=cpu", "threads=1", "model=unet", "model.widths=[4,8]", "augmentation=none", "loader.batch_size=4", "loader.workers=0",
    "evaluate.workers=0", "optimizer.lr=0.02", "schedule=constant", "trainer.steps=6", "trainer.evaluate_every=4",
    "trainer.save_every=5", "trainer.keep_checkpoints=9",
)  # fmt: skip
EVALUATE = ("device=cpu", "threads=1", "evaluate.workers=0")


def blob(rng, size=32):
    """Noise with a bright disc, and where it is."""
    y, x = np.ogrid[:size, :size]
    disc = np.square(y - rng.integers(8, 24)) + np.square(x - rng.integers(8, 24)) < rng.integers(16, 64)
    image = rng.integers(60, 160, (size, size, 3))
    image[disc] += 60
    return image.astype(np.uint8), disc


def description(run: str, step="last") -> dict:
    return json.loads((Path("outputs") / run / "checkpoints" / str(step) / "description.json").read_text())


def killed_after(steps: int, segtrain, *words: str) -> None:
    """Runs the command and kills it in the step after `steps`."""
    original = loop.train

    def train(state, learning, *args, **more):
        def step(state, batch, learning):
            if state.step == steps:
                raise KeyboardInterrupt
            return train_step(state, batch, learning)

        return original(state, learning, *args, **more, step=step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", train)
        assert segtrain(*words).code == 130


@pytest.mark.parametrize(
    ("task", "missing"), [(("task=binary",), "foreground"), (("task=multilabel", "data.labels=[a,b]"), "b")]
)
def test_labels_that_no_scored_pixel_has_are_told(segtrain, write_pair, task, missing):
    rng = np.random.default_rng(0)
    root = Path("pictures")
    for split in ("train", "val"):
        for index in range(2):
            name = f"{split}/{index}"
            image, disc = blob(rng)
            write_pair(root, name, image, np.uint8(255) * (disc & (split == "train")))
            if missing == "b":
                for label, mask in (("a", disc), ("b", disc & (split == "train"))):
                    path = root / "masks" / label / f"{name}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(np.uint8(255) * mask).save(path)
    words = (
        "data=folder",
        f"data.root={root}",
        "loss=dice",
        *SMALL,
        "loader.batch_size=2",
        "trainer.steps=1",
    )
    result = segtrain("train", *task, *words, "name=run")
    assert result.code == 0, result.err
    assert f"labelled pixels, none of {missing}: no prediction scores above 0 there" in result.out
    assert description("run")["protocol"]["labels_without_pixels"] == [missing]


def test_binary(segtrain, write_pair):
    rng = np.random.default_rng(0)
    for name in (*(f"train/{index}" for index in range(8)), *(f"val/{index}" for index in range(3))):
        image, disc = blob(rng)
        write_pair(Path("blobs"), name, image, np.uint8(255) * disc)
    terms = "loss.terms={binary_cross_entropy:{},dice:{factor:0.5}}"
    words = ("train", "task=binary", "data=folder", "data.root=blobs", "loss=weighted_sum", terms, *SMALL)
    result = segtrain(*words, "name=straight")
    assert result.code == 0, result.err
    assert "foreground IoU 0." in result.out and "recall 0." in result.out and "threshold 0." in result.out
    (threshold,) = description("straight", 4)["thresholds"]
    assert threshold == description("straight", 4)["scores"]["threshold"] != 0.5
    assert description("straight", 5)["thresholds"] == [threshold]  # those of the last evaluation
    killed_after(4, segtrain, *words, "name=cut")
    assert segtrain(*words, "name=cut", "resume=auto").code == 0
    for step in (4, 5, 6):
        assert description("cut", step)["thresholds"] == description("straight", step)["thresholds"]

    # Evaluation and prediction take the saved threshold; nothing is fitted to what is scored.
    run = ("run=outputs/cut", "checkpoint=4")
    saved = description("cut", 4)["scores"]
    for split in ("val", "train"):
        result = segtrain("evaluate", *run, f"split={split}", f"output={split}", *EVALUATE)
        assert result.code == 0, result.err
    scores = {split: json.loads(Path(split, "scores.json").read_text()) for split in ("val", "train")}
    assert scores["val"]["foreground_iou"] == saved["foreground_iou"]
    assert scores["val"]["threshold"] == scores["train"]["threshold"] == threshold
    low, high = scores["train"]["interval"]["foreground_iou"]
    assert low < scores["train"]["foreground_iou"] < high
    both = segtrain(
        "evaluate", *run, "split=train", "output=both", "metric=[foreground,confusion]", *EVALUATE
    )
    confused = json.loads(Path("both/scores.json").read_text())
    assert both.code == 0 and confused["iou"]["foreground"] == scores["train"]["foreground_iou"]

    result = segtrain("predict", *run, "input=blobs/images/train", "output=made", "device=cpu")
    assert result.code == 0, result.err
    segtrain(
        "predict", *run, "input=blobs/images/train", "output=no", "tta=flip", "disagreement=true"
    ).refused("compares the most probable classes of views, and task=binary has none")
    segtrain("explain", *run, *EVALUATE).refused("task=binary has none")
    mask, hits, union = load("outputs/cut", 4, device="cpu"), 0, 0
    for path in sorted(Path("blobs/images/train").iterdir()):
        written = np.asarray(Image.open(Path("made/masks") / path.name))
        assert written.dtype == np.uint8 and set(np.unique(written)) <= {0, 255}  # as in the masks
        assert np.array_equal(written // 255, mask(path))
        assert np.array_equal(written == 255, mask.probabilities(path)[0, 0].numpy() >= threshold)
        truth = np.asarray(Image.open(Path("blobs/masks/train") / path.name)) == 255
        hits, union = hits + (truth & (written == 255)).sum(), union + (truth | (written == 255)).sum()
    assert scores["train"]["foreground_iou"] == pytest.approx(hits / union)


def test_binary_without_a_fitted_threshold(segtrain, write_pair):
    rng = np.random.default_rng(0)
    for name in ("train/0", "train/1", "val/0"):
        image, disc = blob(rng)
        write_pair(Path("blobs"), name, image, np.uint8(disc))
    words = ("train", "task=binary", "data=folder", "data.root=blobs", "loss=dice", *SMALL)
    killed_after(3, segtrain, *words, "name=early", "trainer.save_every=2")
    result = segtrain("predict", "run=outputs/early", "checkpoint=2", "input=blobs/images/val", "output=made")
    assert result.code == 0 and "labels hold from a probability of 0.5 on" in result.err
    assert set(np.unique(np.asarray(Image.open("made/masks/0.png")))) <= {0, 1}

    both = ("metric=[foreground,confusion]", "trainer.steps=1", "trainer.evaluate_every=1")
    segtrain(*words, *both).refused("metric.confusion scores decisions", "set task.threshold=0.5")
    result = segtrain(*words, *both, "task.threshold=0.3", "name=fixed")
    assert result.code == 0 and description("fixed")["thresholds"] == [77 / 256], result.err
    made = description("fixed")["scores"]
    assert made["iou"]["class_1"] == made["foreground_iou"]

    segtrain(*words, "predictor.crf=deeplab").refused("predictor.crf works on classes that exclude")
    segtrain(*words, "metric=confusion", "task.threshold=0.5").refused("lacks foreground")
    segtrain(*words, "data.label_map={0: 0, 1: 1, 2: 2}", "data.classes=[a,b,c]").refused(
        "task=binary tells one class from background", "3 classes (a, b, c)"
    )


def test_multilabel(segtrain):
    rng = np.random.default_rng(0)
    for name in (*(f"train/{index}" for index in range(8)), *(f"val/{index}" for index in range(3))):
        image, disc = blob(rng)
        half = np.zeros_like(disc)
        half[rng.integers(4, 28) :] = True
        image[half, 2] //= 2
        for place, values in (
            ("images", image),
            *((f"masks/{k}", np.uint8(v)) for k, v in (("disc", disc), ("half", half))),
        ):
            path = Path("land") / place / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    data = ("task=multilabel", "data=folder", "data.root=land", "data.labels=[disc,half]")
    words = (
        "train",
        *data,
        "loss=binary_cross_entropy",
        *SMALL,
        "augmentation=light",
        "augmentation.warp.size=32",
    )
    result = segtrain(*words, "name=straight")
    assert result.code == 0, result.err
    killed_after(4, segtrain, *words, "name=cut")
    assert segtrain(*words, "name=cut", "resume=auto").code == 0
    for step in (4, 5, 6):
        assert description("cut", step)["thresholds"] == description("straight", step)["thresholds"]
    made = description("cut", 4)
    assert made["thresholds"] == list(made["scores"]["threshold"].values()) and set(made["thresholds"]) != {
        0.5
    }
    assert description("cut", 5)["thresholds"] == made["thresholds"]

    run = ("run=outputs/cut", "checkpoint=4")
    result = segtrain("evaluate", *run, "split=val", "output=scores", *EVALUATE)
    assert result.code == 0, result.err
    scores = json.loads(Path("scores/scores.json").read_text())
    assert scores["iou"] == made["scores"]["iou"] and set(scores["iou"]) == {"disc", "half"}
    result = segtrain("predict", *run, "input=land/images/val", "output=made", "device=cpu", "overlay=true")
    assert result.code == 0, result.err
    mask = load("outputs/cut", 4, device="cpu")
    for place, label in enumerate(("disc", "half")):
        hits = union = 0
        for path in sorted(Path("land/images/val").iterdir()):
            written = np.asarray(Image.open(Path("made/labels") / label / path.name))
            assert np.array_equal(written == 255, mask(path)[..., place] == 1)
            probability = mask.probabilities(path)[0, place].numpy()
            assert np.array_equal(written == 255, probability >= made["thresholds"][place])
            truth = np.asarray(Image.open(Path("land/masks") / label / "val" / path.name)) == 1
            hits, union = hits + (truth & (written == 255)).sum(), union + (truth | (written == 255)).sum()
        assert scores["iou"][label] == pytest.approx(hits / union)

    for labels in ("[half,disc]", "[disc]"):
        segtrain("evaluate", *run, *EVALUATE, f"data.labels={labels}").refused("use data.labels=[disc,half]")
    Image.new("RGB", (32, 32)).save("large.tif")
    result = segtrain("predict", *run, "input=large.tif", "output=no", "max_pixels=1000", "device=cpu")
    assert result.code == 3 and "a prediction of several values a pixel is not written so" in result.err
    segtrain("data", "stats", *data[1:]).refused("an option of segtrain train, data check and data show")

    assert "nothing found in 11 samples" in segtrain("data", "check", *data).out
    assert segtrain("data", "show", *data, "output=show.png").code == 0
    for changed, part in (
        (("metric=[labels,confusion]",), "metric.confusion scores one class a pixel"),
        (("loss.class_weights=median",), "has any number of labels"),
        (("sampler.class_share=0.5",), "class-wise draws need classes"),
        (("predictor.crf=deeplab",), "predictor.crf works on classes that exclude"),
        (("metric=[labels,calibration]",), "metric.calibration scores the probability of the most probable"),
        (("data.window=32",), "data.labels and data.window exclude each other"),
        (("augmentation=object_affine",), "augmentation.object_affine moves objects of classes"),
        (("augmentation=copy_paste",), "augmentation.copy_paste moves objects of classes"),
        (("augmentation=classmix",), "augmentation.classmix mixes classes"),
        (("task=semantic",), "which needs task=multilabel"),
    ):
        segtrain(*words, *changed).refused(part)
    segtrain("train", "task=multilabel", "data=shapes", "loss=dice").refused("task=multilabel needs labels")
