"""Scores over batches, by hand; and where the command writes them."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.cli import main as cli
from segtrain.evaluate.loop import evaluate, evenly_spaced
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

    class Identity:
        def decided(self, decide, images):
            return decide(images)

    return evaluate(
        Identity(),
        lambda images: images[:, 0].long(),
        {"confusion": metric},
        batches(),
        torch.device("cpu"),
        {1},
        kept=["confusion"],
    )


def test_counts_add_up_and_filled_places_do_not_count(scores):
    # Labelled: 0 0 1 1 and 0 0 1. Answered: 0 1 1 1 and 0 0 1. Class 0: 3 right, 4 labelled; class 1: 3
    # right, 4 answered.
    assert scores.numbers["iou"].values == (pytest.approx(3 / 4), pytest.approx(3 / 4), None)
    assert scores.value("pixel_accuracy") == pytest.approx(6 / 7) and scores.protocol["images"] == 2
    rows = scores.per_image["confusion"].to_dense()  # image × true class × predicted class
    assert rows[0].tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]] and rows[1].sum() == 3 and len(rows) == 2
    assert scores.positions == (0, 1) and torch.equal(scores.totals["confusion"], rows.sum(0))


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
    assert "classes present 2" in text
    kept = as_record(scores, FACTS)
    assert kept["iou"] == {"ground": 0.75, "tree": 0.75, "snow": None}


@pytest.mark.parametrize(
    ("count", "wanted", "indices"), [(10, 2, {2, 7}), (3, 4, {0, 1, 2}), (101, 1, {50}), (5, 0, set())]
)
def test_pictures_are_spread_over_the_split(count, wanted, indices):
    assert evenly_spaced(count, wanted) == indices


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
    ("data.images=other/i", "data.masks=other/m", "split=val"),
    ("evaluate.absent=gt",),
    ("metric=[confusion,boundary]",),
    ("predictor.crf=deeplab", "predictor.crf_solver=torch", "predictor.crf_window=3"),
    ("predictor.crf=deconvnet", "predictor.crf_solver=torch", "predictor.crf_window=3"),
    ("tta=flip", "tta.flip.axes=[vertical]"),
]


def test_scores_overwrite_nothing_and_say_how_they_were_made(user, scored):
    folder = user / "outputs" / "run" / "evaluate"
    names = [scored(*words)[0] for words in [(), (), *OTHER_WAYS]]
    assert names == ["val-1", *(f"val-1-{number}" for number in range(2, len(names) + 1))]
    protocols = [json.loads((folder / name / "scores.json").read_text())["protocol"] for name in names]
    same, first, *others = [{**one, "seconds": 0} for one in protocols]
    assert same == first and all(one != first for one in others)


def test_a_folder_that_was_named_holds_the_last_scores(user, scored, segtrain):
    words = ("evaluate", "run=outputs/run", "device=cpu", "output=mine")
    assert segtrain(*words).code == 0 and (user / "mine" / "sheet.png").is_file()
    again = segtrain(*words, "evaluate.pictures=0")
    assert again.code == 0 and not (user / "mine" / "sheet.png").exists() and "sheet.png" not in again.out


def test_an_interval_is_printed_and_saved_unless_it_is_switched_off(user, segtrain, monkeypatch):
    monkeypatch.chdir(user)
    words = ("evaluate", "run=outputs/run", "device=cpu", "output=doubt", "split=all")
    result = segtrain(*words)
    record = json.loads((user / "doubt" / "scores.json").read_text())
    low, high = record["interval"]["miou"]
    assert low <= record["miou"] <= high and set(record["interval"]["iou"]) == {"ground", "tree"}
    assert (
        f"interval  mIoU {record['miou']:.4f}, 95 % interval {low:.4f} to {high:.4f} (1000 res" in result.out
    )
    assert record["interval"]["units"] == 4 and "IoU   95 % interval" in result.out
    result = segtrain(*words, "bootstrap=0")
    record = json.loads((user / "doubt" / "scores.json").read_text())
    assert "interval" not in result.out and record["interval"]["reason"] == "bootstrap=0"


@pytest.fixture
def without_data(user):
    (user / "sizes").rename(user / "away")
    yield
    (user / "away").rename(user / "sizes")


@pytest.mark.usefixtures("without_data")
def test_paths_of_a_run_that_lead_nowhere(user, segtrain, tmp_path):
    words = ("evaluate", f"run={user / 'outputs' / 'run'}", "device=cpu")
    segtrain(*words).refused(
        "data.images is 'sizes/i'", f"was started in {user}, where its relative paths begin"
    )
    segtrain("compare", f"runs=[{user / 'outputs' / 'run'}]", "device=cpu").refused(f"was started in {user}")
    typed = segtrain(*words, "data.images=none")
    typed.refused("data.images is 'none'")
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
        assert scored()[0].startswith("val-1")
    finally:
        state.write_bytes(content)


def test_an_empty_folder_for_scores_is_refused(user, segtrain, monkeypatch):
    monkeypatch.chdir(user)
    segtrain("evaluate", "run=outputs/run", "output=").refused(
        "output is empty", "give folder for scores.json"
    )
