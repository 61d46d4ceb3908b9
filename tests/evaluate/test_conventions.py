"""The mIoU by the conventions of other programs, against these programs."""

import math

import numpy as np
import pytest
import torch

from segtrain.evaluate.conventions import Conventions, as_record, lines
from segtrain.sample import IGNORE, Facts

CLASSES = ("background", "cat", "dog", "cow", "horse")
FACTS = Facts(classes=CLASSES, palette=((0, 0, 0),) * 5)


def pairs(num_labelled=4, num_predicted=4):
    """Three images; class 4 (and more, where fewer are asked for) is neither labelled nor predicted."""
    rng = np.random.default_rng(1)
    for _ in range(3):
        target = rng.integers(0, num_labelled, (12, 20)).astype(np.uint8)
        predicted = rng.integers(0, num_predicted, target.shape).astype(np.uint8)
        agree = rng.random(target.shape) < 0.6
        decisions = np.where(agree & (target < num_predicted), target, predicted)
        target[rng.random(target.shape) < 0.1] = IGNORE
        target[target == rng.integers(1, num_labelled)] = 0  # each image lacks a class
        yield target, decisions


def rows(found, facts=FACTS):
    tally = Conventions(facts)
    for target, decisions in found:
        tally.add(target, decisions)
    return tally.rows()


def by_name(found):
    return {row.name: row.miou for row in rows(found) if row.name}


@pytest.mark.parametrize("reduction", ["macro", "micro", "macro-imagewise", "micro-imagewise"])
def test_as_segmentation_models_pytorch(reduction):
    smp = pytest.importorskip("segmentation_models_pytorch")
    found = list(pairs())
    target, decisions = (torch.from_numpy(np.stack(one)).long() for one in zip(*found, strict=True))
    stats = smp.metrics.get_stats(decisions, target, mode="multiclass", num_classes=5, ignore_index=IGNORE)
    expected = smp.metrics.iou_score(*stats, reduction=reduction)
    assert by_name(found)[f"smp, {reduction}"] == pytest.approx(float(expected), abs=1e-6)


def test_as_torchmetrics():
    metrics = pytest.importorskip("torchmetrics")
    found = list(pairs())
    segmentation = pytest.importorskip("torchmetrics.segmentation")
    mean = segmentation.MeanIoU(num_classes=5, input_format="index")
    dataset = metrics.JaccardIndex(task="multiclass", num_classes=5, ignore_index=IGNORE, average="macro")
    for target, decisions in found:
        known = target != IGNORE  # MeanIoU knows no ignore index
        mean.update(
            torch.from_numpy(decisions[known])[None].long(), torch.from_numpy(target[known])[None].long()
        )
        dataset.update(torch.from_numpy(decisions).long()[None], torch.from_numpy(target).long()[None])
    assert by_name(found)["torchmetrics, MeanIoU"] == pytest.approx(float(mean.compute()), abs=1e-6)
    assert rows(found)[0].miou == pytest.approx(float(dataset.compute()), abs=1e-6)


def test_as_the_confusion_matrix_of_torchvision():
    """references/segmentation/utils.py: diagonal / (rows + columns - diagonal), then the plain mean."""
    for classes in (4, 5):
        found = list(pairs(classes, classes))
        matrix = np.zeros((5, 5))
        for target, decisions in found:
            known = target != IGNORE
            np.add.at(matrix, (target[known], decisions[known]), 1)
        with np.errstate(invalid="ignore"):
            expected = (np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))).mean()
        assert by_name(found)["torchvision, own size"] == pytest.approx(expected, nan_ok=True)
        assert math.isnan(expected) == (classes == 4)


def test_rules_by_hand():
    """Labels: 4 background, 4 cat, 2 ignored. The cats are found but for one; a pixel of background is a
    dog; a pixel of background is no class."""
    target = np.array([[0, 0, 0, 0, 1, 1, 1, 1, IGNORE, IGNORE]], np.uint8)
    decisions = np.array([[0, 0, 2, 5, 1, 1, 1, 0, 1, 3]], np.uint8)
    found = rows([(target, decisions)])
    background, cat, dog = 2 / 5, 3 / 4, 0
    by_rule = {row.rule: row.miou for row in found}
    assert found[0].miou == pytest.approx((background + cat + dog) / 3)
    assert found[0].rule == "absent classes left out (2 here)"
    assert by_rule["classes without a labelled pixel left out"] == pytest.approx((background + cat) / 2)
    assert by_rule["absent classes count as 0"] == pytest.approx((background + cat) / 5)
    assert by_rule["absent classes count as 1"] == pytest.approx((background + cat + 2) / 5)
    # 5 hits; 8 labelled and 7 predicted pixels.
    assert by_rule["pixels of all classes in one IoU"] == pytest.approx(5 / 10)
    without = "mean without background, whose pixels count as errors of the others"
    assert by_rule[without] == pytest.approx((cat + dog) / 2)
    # Of the cats' 4 pixels one is predicted as background, which is no class then.
    assert by_rule["pixels labelled background ignored"] == pytest.approx(3 / 4)


def test_the_rule_that_moves_the_number_most_is_named():
    printed = lines(rows(pairs()))
    assert printed[-1].startswith("most moved by ") and len(printed) == len(rows(pairs())) + 2
    target, _ = next(pairs())
    same = Facts(classes=("a", "b", "c", "d"), palette=((0, 0, 0),) * 4)
    target = np.where(target == IGNORE, 0, target)
    target[0, :4] = range(4)
    assert lines(rows([(target, target)], same))[-1] == "no rule moves the mIoU"
    records = as_record(rows(pairs()))
    assert next(one["miou"] for one in records if one["convention"] == "torchvision, own size") is None


def test_nothing_labelled_scores_nothing():
    empty = np.full((4, 4), IGNORE, np.uint8)
    assert rows([(empty, np.zeros_like(empty))])[0].miou is None
