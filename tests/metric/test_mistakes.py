"""Kinds of wrong pixels: by hand on 8×8 pixels; they partition the wrong pixels, and without them all is
right."""

import numpy as np
import pytest
import torch

from segtrain.evaluate.explanation import COLOURS, explanation, lines, painted, worst
from segtrain.metric import METRIC
from segtrain.metric.mistakes import KINDS, mistakes_of
from segtrain.sample import IGNORE, Facts

FACTS = Facts(("a", "b", "c"), ((0, 0, 0),) * 3)


def built(num_classes: int = 3, **options):
    return METRIC.build({"name": "mistakes", **options}, num_classes=num_classes, ignore_index=IGNORE)


def area(rows: slice, columns: slice, value: int = 1, base: np.ndarray | None = None) -> np.ndarray:
    """8×8 zeros, or `base`, with `value` in a rectangle."""
    classes = np.zeros((8, 8), np.uint8) if base is None else base.copy()
    classes[rows, columns] = value
    return classes


def pixels_of(target: np.ndarray, prediction: np.ndarray, band_px: int = 1) -> tuple[dict, tuple]:
    """Pixels of each kind that occurs, and the numbers of objects."""
    kinds, objects = mistakes_of(target, prediction, IGNORE, band_px, 0.1)
    found = {kind: int((kinds == 1 + place).sum()) for place, kind in enumerate(KINDS)}
    return {kind: pixels for kind, pixels in found.items() if pixels}, objects


NOTHING = np.zeros((8, 8), np.uint8)
SQUARE = area(slice(3, 5), slice(3, 5))
RIGHT_HALF = area(slice(None), slice(4, None))


@pytest.mark.parametrize(
    ("target", "prediction", "pixels", "objects"),
    [
        (SQUARE, SQUARE, {}, (2, 0, 2, 0)),
        (SQUARE, NOTHING, {"missed": 4}, (2, 1, 1, 0)),
        (NOTHING, SQUARE, {"invented": 4}, (1, 0, 2, 1)),
        # A column too far to the right: 8 pixels beside the boundary.
        (RIGHT_HALF, area(slice(None), slice(5, None)), {"boundary": 8}, (2, 0, 2, 0)),
        # Half of class 1 is called 0 and belongs to a large area of 0: one column is at the boundary.
        (RIGHT_HALF, area(slice(4, None), slice(4, None)), {"boundary": 4, "confused": 12}, (2, 0, 2, 0)),
        # Another class all over an object: the true object is missed before the other one is invented.
        (SQUARE, area(slice(3, 5), slice(3, 5), 2), {"missed": 4}, (2, 1, 2, 1)),
        # Nothing is counted without a label, be it wrong or a whole component.
        (area(slice(3, 5), slice(3, 5), IGNORE), SQUARE, {}, (1, 0, 1, 0)),
    ],
)
def test_kinds_by_hand(target, prediction, pixels, objects):
    assert pixels_of(target, prediction) == (pixels, objects)


def test_an_object_is_missed_below_a_tenth_and_found_from_a_tenth_on():
    """A bar of 20 pixels of class 1 in a picture of 8×24, of which one and two pixels are hit."""
    target = np.zeros((8, 24), np.uint8)
    target[4, 2:22] = 1
    for hit, kinds in ((1, {"missed": 19}), (2, {"boundary": 18})):
        prediction = np.zeros_like(target)
        prediction[4, 2 : 2 + hit] = 1
        assert pixels_of(target, prediction)[0] == kinds


def test_the_band_has_that_many_pixels_on_each_side():
    prediction = area(slice(4, None), slice(4, None))
    assert [pixels_of(RIGHT_HALF, prediction, band)[0].get("boundary") for band in (1, 2, 3)] == [4, 8, 12]


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Targets and predictions of three images that hold all kinds of mistakes and unlabelled pixels: blocks
    that are moved by two pixels, a class never found, an area found in half, an object where there is
    none."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 3, (3, 5, 6), generator=generator)
    target = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    target[1], target[2] = 2, 0
    target[1, :, 24:] = 1
    decisions = target.roll(2, 2)
    decisions[0][target[0] == 2] = 0
    decisions[1, :20, 30:] = 2
    decisions[1, :20, 20:30] = 2
    decisions[2, 10:14, 10:14] = 1
    target[:, :3, 5:20] = IGNORE
    return target.to(torch.uint8), decisions


def test_kinds_are_a_partition_of_the_wrong_pixels_and_mending_all_leaves_none():
    target, decisions = images()
    metric = built()
    counts = metric.counts(target, decisions=decisions)
    tally = metric.tally(counts.sum(0))
    whole = METRIC.build({"name": "confusion"}, num_classes=3, ignore_index=IGNORE)
    assert torch.equal(tally.whole, whole.counts(target, decisions=decisions).sum(0))
    assert all(wrong.sum() > 0 and wrong.diagonal().sum() == 0 for wrong in tally.wrong)
    all_wrong = tally.wrong.sum(0)
    assert torch.equal(all_wrong + torch.diag(tally.whole.diagonal()), tally.whole)
    assert metric.miou(tally.mended(all_wrong)) == 1.0
    for image in range(3):
        kinds = metric.of(target[image].numpy(), decisions[image].numpy()).kinds
        wrong = (target[image] != IGNORE) & (target[image] != decisions[image])
        assert np.array_equal(kinds > 0, wrong.numpy())


def test_the_gain_is_that_of_the_corrected_prediction():
    target, decisions = images()
    metric = built()
    found = metric.scores(metric.counts(target, decisions=decisions).sum(0))
    confusion = METRIC.build({"name": "confusion"}, num_classes=3, ignore_index=IGNORE)

    def miou(predicted: torch.Tensor) -> float:
        return confusion.scores(confusion.counts(target, decisions=predicted).sum(0))["miou"].value

    for place, kind in enumerate(KINDS):
        pairs = zip(target.numpy(), decisions.numpy(), strict=True)
        kinds = torch.from_numpy(np.stack([metric.of(*pair).kinds for pair in pairs]))
        mended = torch.where(kinds == 1 + place, target.long(), decisions)
        assert found[f"gain_{kind}"].value == pytest.approx(miou(mended) - miou(decisions)), kind


def test_the_explanation_names_pairs_and_adds_up():
    target, decisions = images()
    metric = built()
    record = explanation(metric, metric.counts(target, decisions=decisions).sum(0), FACTS)
    kinds = record["kinds"].values()
    assert sum(one["pixels"] for one in kinds) == record["wrong_pixels"]
    assert sum(one["share"] for one in kinds) == pytest.approx(1)
    inside = record["wrong_pixels"] - record["kinds"]["boundary"]["pixels"]
    assert sum(one["pixels"] for one in record["pairs"]) == inside and len(record["pairs"]) >= 3
    first = record["pairs"][0]
    assert first["class"] != first["predicted"] and first["gain"] > 0
    text = "\n".join(lines(record))
    assert f"{record['kinds']['missed']['objects']} of {record['kinds']['missed']['of']}" in text
    perfect = metric.counts(target, decisions=target.long().clamp(max=2)).sum(0)
    assert explanation(metric, perfect, FACTS)["pairs"] == []


class Split:
    """Eight images of one video: blocks of two."""

    def names_and_groups(self) -> list[tuple[str, str]]:
        return [(f"frame_{number}", "drive") for number in range(8)]


def test_the_worst_images_are_of_different_blocks_and_those_without_labels_never():
    miou, positions = np.array([0.5, np.nan, 0.1, 0.3, 0.6]), (7, 6, 5, 4, 0)
    assert worst(miou, positions, 2, Split()) == [(5, 0.1), (7, 0.5)]  # 4 is a neighbour of 5
    assert worst(miou, positions, 9, Split()) == [(5, 0.1), (4, 0.3), (7, 0.5), (0, 0.6)]


def test_errors_have_the_colour_of_their_kind():
    target = area(slice(0, 1), slice(0, 1), IGNORE, SQUARE)
    picture = painted(built(), target, NOTHING, IGNORE)
    assert picture[3, 3].tolist() == list(COLOURS["missed"]) and picture[0, 0].tolist() == [255] * 3
    assert picture[7, 7].tolist() == [225] * 3
