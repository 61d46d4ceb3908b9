"""Intervals against a loop over resamples; the units that are drawn; what a comparison says."""

import time

import numpy as np
import pytest
import torch

from segtrain.evaluate.difference import Spread, difference, protocol_difference, same_but_seed
from segtrain.evaluate.interval import Intervals, bounds_of, draws, intervals
from segtrain.evaluate.loop import Scores
from segtrain.evaluate.units import Units, units
from segtrain.metric import METRIC
from segtrain.sample import IGNORE, Facts

RULES = ("union", "gt", "zero", "one")


def confusion(num_classes: int, absent: str = "union", num_answers: int | None = None):
    runtime = {"num_classes": num_classes, "ignore_index": IGNORE, "absent": absent}
    return METRIC.build({"name": "confusion"}, num_answers=num_answers, **runtime)


def matrices(images: int, num_classes: int, num_answers: int, seed: int = 0) -> torch.Tensor:
    """Confusion matrices of images that hold a third of the classes each."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 100, (images, num_classes, num_answers))
    counts[rng.random((images, num_classes)) < 2 / 3] = 0
    counts[rng.random(counts.shape) < 0.5] = 0
    return torch.from_numpy(counts)


def scores_of(metric, counts: torch.Tensor, positions=None) -> Scores:
    positions = tuple(range(len(counts))) if positions is None else positions
    numbers = metric.scores(counts.sum(0))
    return Scores(numbers, {}, [], (), {}, {"confusion": counts.to_sparse()}, positions)


@pytest.mark.parametrize("absent", RULES)
@pytest.mark.parametrize("num_answers", [4, 5])
def test_intervals_equal_those_of_a_loop_over_resamples(absent, num_answers):
    metric = confusion(4, absent, num_answers)
    counts = matrices(9, 4, num_answers)
    groups = Units((0, 0, 1, 2, 2, 2, 3, 4, 4), "group")
    found = intervals({"confusion": metric}, scores_of(metric, counts), groups, 40)
    (weights,) = draws(5, 40)
    assert weights.shape == (40, 5) and set(weights.sum(1)) == {5.0}
    expected = {"miou": [], "iou": []}
    for drawn in weights:
        images = [image for image, unit in enumerate(groups.of) for _ in range(int(drawn[unit]))]
        scores = metric.scores(counts[images].sum(0))
        expected["miou"].append(scores["miou"].value)
        expected["iou"].append(scores["iou"].values)
    for key, rows in expected.items():
        assert found.values[key] == pytest.approx(np.array(rows, float), nan_ok=True, abs=1e-12)
    known = [value for value in expected["miou"] if value is not None]
    assert found.bounds["miou"] == pytest.approx(np.percentile(known, [2.5, 97.5]))
    assert len(found.bounds["iou"]) == 4


def test_rows_belong_to_the_images_they_were_counted_on():
    """An evaluation orders images by size; the units are in the order of the split."""
    metric, counts = confusion(3), matrices(6, 3, 3)
    groups = Units((0, 0, 1, 1, 2, 2), "group")
    order = (5, 0, 3, 1, 4, 2)
    plain = intervals({"confusion": metric}, scores_of(metric, counts), groups, 50)
    mixed = intervals({"confusion": metric}, scores_of(metric, counts[list(order)], order), groups, 50)
    assert np.array_equal(plain.values["miou"], mixed.values["miou"], equal_nan=True)


def test_images_that_are_all_alike_leave_no_doubt_and_groups_leave_more_than_images():
    metric = confusion(2)
    right, wrong = torch.tensor([[9, 0], [0, 9]]), torch.tensor([[5, 4], [4, 5]])
    alike = scores_of(metric, wrong.expand(20, 2, 2))
    low, high = intervals({"confusion": metric}, alike, Units(tuple(range(20)), "image"), 100).bounds["miou"]
    assert low == high == pytest.approx(5 / 13)
    halves = scores_of(metric, torch.stack([right] * 10 + [wrong] * 10))
    wide, narrow = (
        np.diff(intervals({"confusion": metric}, halves, Units(of, "group"), 1000).bounds["miou"])[0]
        for of in (tuple(i // 5 for i in range(20)), tuple(range(20)))
    )
    assert wide > 1.5 * narrow


def test_a_thousand_resamples_of_500_images_take_less_than_a_second():
    metric = confusion(19)
    scores = scores_of(metric, matrices(500, 19, 19))
    start = time.process_time()
    found = intervals({"confusion": metric}, scores, Units(tuple(range(500)), "image"), 1000)
    assert time.process_time() - start < 1 and len(found.values["iou"]) == 1000
    again = intervals({"confusion": metric}, scores, Units(tuple(range(500)), "image"), 1000)
    assert again.bounds == found.bounds


def test_why_there_is_no_interval():
    metric, counts = confusion(3), matrices(4, 3, 3)
    scores = scores_of(metric, counts)
    of_one = intervals({"confusion": metric}, scores, Units((0,) * 4, "group"), 100)
    assert of_one.line(scores, "miou") == (
        "interval  none: all images are of one group, which says nothing about others"
    )
    assert "reason" in of_one.record(scores, Facts(("a", "b", "c"), ((0, 0, 0),) * 3))
    assert intervals({"confusion": metric}, scores, Units((0, 1, 2, 3), "image"), 0).reason == "bootstrap=0"
    few = intervals({"confusion": metric}, scores, Units((0, 1, 2, 2), "group"), 100)
    assert few.line(scores, "miou").endswith("3 groups; of fewer than 10, intervals come out too narrow)")


def test_groups_are_units_and_a_sample_without_one_is_its_own():
    found = units([("a1", "x"), ("a2", ""), ("a3", "x"), ("a4", "y"), ("a5", "")])
    assert found.of == (0, 1, 0, 2, 3) and found.kind == "group" and found.words == "4 groups"


def test_frames_are_cut_into_blocks_in_the_order_of_their_numbers():
    """8 names: blocks of 2 frames, whatever their order in the split, and none over two prefixes."""
    names = ["b_30", "a_7", "a_10", "a_9", "b_5", "a_8", "b_29", "alone"]
    found = units([(name, "") for name in names])
    together = {
        frozenset(n for n, of in zip(names, found.of, strict=True) if of == unit) for unit in found.of
    }
    assert together == {
        frozenset(block) for block in (["a_7", "a_8"], ["a_9", "a_10"], ["b_5", "b_29"], ["b_30"], ["alone"])
    }
    assert found.words == "5 blocks of consecutive images"
    assert units([("x", ""), ("y", "")]) == Units((0, 1), "image")


def resampled(values) -> Intervals:
    values = np.asarray(values, float)
    return Intervals(
        len(values), Units((0, 1), "group"), {"miou": bounds_of(values)}, values={"miou": values}
    )


def test_paired_differences_are_clearer_than_two_intervals():
    """Two runs that go up and down together: their intervals overlap, their difference is certain."""
    common = np.linspace(0.3, 0.6, 101)
    first, second = resampled(common + 0.02), resampled(common)
    assert first.bounds["miou"][0] < second.bounds["miou"][1]
    clear = difference(("a", "b"), (0.47, 0.45), (first, second), "miou", False)
    assert clear.distinguishable() and clear.bounds == pytest.approx((0.02, 0.02))
    assert clear.line("mIoU").startswith("a is better than b by mIoU 0.0200 (95 % interval 0.0200 to")
    unclear = difference(("a", "b"), (0.47, 0.45), (first, resampled(common[::-1])), "miou", False)
    assert unclear.distinguishable() is False and unclear.bounds[0] < 0 < unclear.bounds[1]
    assert "a and b are not distinguishable: difference of mIoU 0.0200" in unclear.line("mIoU")
    error = difference(("b", "a"), (0.45, 0.47), (second, first), "miou", True)
    assert error.value == pytest.approx(0.02) and error.bounds == pytest.approx((0.02, 0.02))
    without = difference(("a", "b"), (0.5, 0.4), (first, Intervals(0, first.units)), "miou", False)
    assert without.bounds is None and "without an interval" in without.line("mIoU")


def test_runs_of_other_protocols_are_not_compared_and_what_differs_is_named():
    one = {
        "absent": "union",
        "tile": None,
        "output_stride": 8,
        "seconds": 1,
        "tta": {"flip": {"axes": ("h",)}},
    }
    same = {**one, "output_stride": 16, "seconds": 2, "tta": {"flip": {"axes": ["h"]}}, "further": 1}
    assert protocol_difference(one, same) == ""
    unlike = protocol_difference(one, {**same, "absent": "gt", "tile": 512})
    assert unlike == "absent (union, gt), tile (null, 512)"
    found = difference(("a", "b"), (0.5, 0.4), (resampled([1, 2]),) * 2, "miou", False, unlike)
    assert found.value is None and found.line("mIoU") == f"a and b are not compared: {unlike}"


def test_runs_of_several_seeds_are_recognised():
    config = {"seed": 0, "name": "a", "optimizer": {"lr": 0.1}, "loader": {"workers": 0, "batch_size": 2}}
    other = {**config, "seed": 1, "name": "b", "loader": {"workers": 4, "batch_size": 2}}
    higher = {**config, "seed": 2, "optimizer": {"lr": 0.2}}
    copy = {**config, "name": "c"}
    assert same_but_seed({"a": config, "b": other, "h": higher}) == [["a", "b"]]
    assert same_but_seed({"a": config, "c": copy}) == []
    spread = Spread.of([0.4, 0.5, 0.6])
    assert spread == pytest.approx((0.5, 0.1)) and str(spread) == "0.5000 ± 0.1000"
    assert str(Spread.of([0.4, None])) == "-"
