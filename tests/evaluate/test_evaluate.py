"""Scores over batches, by hand; and where the command writes them."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.cli import main as cli
from segtrain.evaluate.loop import evaluate, spread
from segtrain.evaluate.table import as_record, lines
from segtrain.loader.batch import Batch
from segtrain.metric import METRIC
from segtrain.sample import IGNORE, Facts

FACTS = Facts(classes=("ground", "tree", "snow"), palette=((0, 0, 0), (0, 255, 0), (255, 255, 255)))


def batches():
    """Two images whose pixel values are the answers; the last place of the second batch is filled up and
    ignored."""
    first = torch.tensor([[[0, 1], [1, 1]]], dtype=torch.uint8)
    second = torch.tensor([[[0, 0], [0, 1]]], dtype=torch.uint8)
    yield Batch(first[:, None], torch.tensor([[[0, 0], [1, 1]]], dtype=torch.uint8), ["a"], [0], 1)
    both = torch.cat([second, second])
    targets = torch.cat(
        [
            torch.tensor([[[0, 0], [IGNORE, 1]]], dtype=torch.uint8),
            torch.full((1, 2, 2), IGNORE, dtype=torch.uint8),
        ]
    )
    yield Batch(both[:, None], targets, ["b", "b"], [1, 1], 1)


@pytest.fixture
def scores():
    metric = METRIC.build({"name": "confusion"}, num_classes=3, ignore_index=IGNORE)
    return evaluate(
        lambda images: images[:, 0].long(),
        metric,
        batches(),
        torch.device("cpu"),
        "union",
        {1},
    )


def test_counts_add_up_and_filled_places_do_not_count(scores):
    # Labelled: 0 0 1 1 and 0 0 1. Answered: 0 1 1 1 and 0 0 1. Class 0: 3 right, 4 labelled; class 1: 3
    # right, 4 answered.
    assert scores.numbers["iou"] == [pytest.approx(3 / 4), pytest.approx(3 / 4), None]
    assert scores.numbers["pixel_accuracy"] == pytest.approx(6 / 7) and scores.protocol["images"] == 2


def test_only_the_wanted_pictures_are_kept(scores):
    ((image, target, prediction),) = scores.pictures
    assert (
        image.shape == (2, 2, 1)
        and target.tolist() == [[0, 0], [IGNORE, 1]]
        and prediction.tolist() == [[0, 0], [0, 1]]
    )


def test_the_table_and_the_record_name_the_classes(scores):
    text = "\n".join(lines(scores.numbers, FACTS))
    assert "tree    0.7500  0.8571    1.0000" in text and "snow         -       -         -" in text
    assert "1 of 3 classes absent" in text
    kept = as_record(scores, FACTS)
    assert (
        kept["iou"] == {"ground": 0.75, "tree": 0.75, "snow": None} and kept["protocol"]["absent"] == "union"
    )


@pytest.mark.parametrize(
    ("count", "wanted", "indices"), [(10, 2, {2, 7}), (3, 4, {0, 1, 2}), (101, 1, {50}), (5, 0, set())]
)
def test_pictures_are_spread_over_the_split(count, wanted, indices):
    assert spread(count, wanted) == indices


# --- the command


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """A folder with the run outputs/run, which was trained there on sizes/i and sizes/m."""
    folder = tmp_path_factory.mktemp("user")
    rng = np.random.default_rng(0)
    for place in ("sizes", "other"):
        for kind, shape in (("i", (48, 48, 3)), ("m", (48, 48))):
            (folder / place / kind).mkdir(parents=True)
            for name in "abcd":
                Image.fromarray(rng.integers(0, 2, shape, dtype=np.uint8)).save(
                    folder / place / kind / f"{name}.png"
                )
    words = [
        "data=folder",
        "data.images=sizes/i",
        "data.masks=sizes/m",
        "data.classes=[ground,tree]",
        "data.val_fraction=0.5",
    ]
    words += [
        "augmentation.warp.size=48",
        "loader.batch_size=2",
        "loader.workers=0",
        "evaluate.workers=0",
        "trainer.steps=1",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["train", *words, "model.widths=[4,8]", "device=cpu", "threads=1", "name=run"]) == 0
    return folder


@pytest.fixture
def scored(user, segtrain, monkeypatch):
    """Evaluates the run; the name of the folder of its scores, and what was printed."""
    monkeypatch.chdir(user)

    def call(*words: str) -> tuple[str, str]:
        result = segtrain("evaluate", "run=outputs/run", "device=cpu", "threads=1", *words)
        assert result.code == 0, result.err
        return re.search("written   outputs/run/evaluate/(.*)/scores.json", result.out)[1], result.out

    return call


OTHER_WAYS = [
    ("predictor.tile=20",),
    ("predictor.tile=30",),
    ("data.images=other/i", "data.masks=other/m"),
    ("evaluate.absent=gt",),
    ("evaluate.boundary_px=2",),
    ("predictor.crf=deeplab", "predictor.crf_solver=torch", "predictor.crf_window=3"),
    ("predictor.crf=deconvnet", "predictor.crf_solver=torch", "predictor.crf_window=3"),
    ("tta=flip", "tta.flip.axes=[vertical]"),
]


def test_scores_that_are_made_in_other_ways_overwrite_nothing(scored):
    plain = ["data.val_fraction=0.5", "evaluate.pictures=1", "evaluate.batch_size=1"]
    assert {scored()[0], scored(*plain)[0]} == {"val-1"} and scored("tta=flip")[0] == "val-1-flip"
    names = [scored(*words)[0] for words in OTHER_WAYS]
    assert len(set(names)) == len(names) and all(
        re.fullmatch("val-1(-flip|-crf)?-[0-9a-f]{6}", name) for name in names
    )
    assert scored(*OTHER_WAYS[0])[0] == names[0]


def test_no_picture_of_other_scores_stays(user, scored):
    name, out = scored("split=train")
    sheet = user / "outputs" / "run" / "evaluate" / name / "sheet.png"
    assert sheet.is_file() and out.endswith(", outputs/run/evaluate/train-1/sheet.png\n")
    name, out = scored("split=train", "evaluate.pictures=0")
    assert name == "train-1" and not sheet.exists() and "sheet.png" not in out


def test_paths_of_a_run_that_lead_nowhere_from_here(user, segtrain, tmp_path):
    words = ("evaluate", f"run={user / 'outputs' / 'run'}", "device=cpu")
    segtrain(*words).refused(
        "data.images is 'sizes/i'", f"was started in {user}, where its relative paths begin"
    )
    segtrain("compare", f"runs=[{user / 'outputs' / 'run'}]", "device=cpu").refused(f"was started in {user}")
    typed = segtrain(*words, "data.images=mine")
    typed.refused("data.images is 'mine'")
    assert "was started in" not in typed.err
    (user / "outputs" / "run" / "run.json").rename(tmp_path / "run.json")
    try:
        assert "was started in" not in segtrain(*words).err
    finally:
        (tmp_path / "run.json").rename(user / "outputs" / "run" / "run.json")
    assert json.loads((user / "outputs" / "run" / "run.json").read_text())["directory"] == str(user)


def test_what_only_training_needs_may_be_missing(user, scored):
    state = user / "outputs" / "run" / "checkpoints" / "1" / "state.pt"
    content = state.read_bytes()
    state.unlink()
    try:
        assert scored()[0] == "val-1"
    finally:
        state.write_bytes(content)


def test_an_empty_folder_for_scores_is_refused(user, segtrain, monkeypatch):
    monkeypatch.chdir(user)
    segtrain("evaluate", "run=outputs/run", "output=").refused(
        "output is empty", "give folder for scores.json"
    )
