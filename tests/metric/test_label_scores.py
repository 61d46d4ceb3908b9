"""Scores of labels, by hand and against torchmetrics."""

import math

import pytest
import torch
from torchmetrics.classification import (
    BinaryF1Score,
    BinaryJaccardIndex,
    BinaryPrecision,
    BinaryRecall,
    MultilabelJaccardIndex,
)

from segtrain.errors import ConfigError
from segtrain.metric import METRIC
from segtrain.sample import Target

BINARY, SEVERAL = Target(labels=True), Target(classes=False, labels=True)


def scores(name, target, probabilities, thresholds, kind, absent="union"):
    metric = METRIC.build_each({name: {}}, thresholds=thresholds, absent=absent, target=kind)[0]
    counts = metric.counts(target, probabilities=probabilities)
    assert len(counts) == len(target)
    return metric.scores(counts.sum(0))


def test_foreground_by_hand():
    target = torch.tensor([[[1, 1, 1, 0]], [[0, 0, 255, 1]]])
    probabilities = torch.tensor([[[[0.9, 0.6, 0.2, 0.7]]], [[[0.1, 0.4, 0.9, 0.8]]]])
    found = scores("foreground", target, probabilities, (0.5,), BINARY)  # TP 3, FP 1, FN 1
    values = {key: one.value for key, one in found.items()}
    assert values == {
        "foreground_iou": 3 / 5,
        "foreground_dice": 6 / 8,
        "precision": 3 / 4,
        "recall": 3 / 4,
        "threshold": 0.5,
    }
    fit = scores("foreground", target, probabilities, None, BINARY)
    # From 0.2 to below 0.4: TP 4, FP 2; from 0.7 to below 0.8: TP 2; from 0.4 on: 3 of 5.
    assert fit["foreground_iou"].value == 4 / 6 and fit["threshold"].value == 51 / 256


def test_foreground_is_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(3, 1, 20, 30, generator=generator)
    target = (torch.rand(3, 20, 30, generator=generator) < probabilities[:, 0]).to(torch.uint8)
    target[torch.rand(3, 20, 30, generator=generator) < 0.1] = 255
    found = scores("foreground", target, probabilities, (0.25,), BINARY)
    for key, reference in (
        ("foreground_iou", BinaryJaccardIndex),
        ("foreground_dice", BinaryF1Score),
        ("precision", BinaryPrecision),
        ("recall", BinaryRecall),
    ):
        expected = reference(threshold=0.25, ignore_index=255)(probabilities[:, 0], target.long())
        assert found[key].value == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(("absent", "iou"), [("union", None), ("gt", None), ("zero", 0.0), ("one", 1.0)])
def test_no_foreground_at_all(absent, iou):
    target, low = torch.zeros(1, 2, 2).long(), torch.full((1, 1, 2, 2), 0.1)
    assert scores("foreground", target, low, (0.5,), BINARY, absent)["foreground_iou"].value == iou
    wrong = scores("foreground", target, 1 - low, (0.5,), BINARY, absent)
    assert wrong["foreground_iou"].value == {"gt": None, "one": 0.0}.get(absent, 0.0)
    unlabelled = scores("foreground", target + 255, low, None, BINARY, absent)
    assert unlabelled["threshold"].value == 0.5


def test_scores_that_are_not_finite_do_not_leave_the_bins():
    counts = METRIC.build_each({"foreground": {}}, target=BINARY)[0].counts(
        torch.ones(1, 1, 3).long(), probabilities=torch.tensor([[[[math.nan, math.inf, -math.inf]]]])
    )
    assert counts.sum() == 3


def test_other_tasks_are_refused():
    with pytest.raises(ConfigError, match=r"metric\.foreground scores the probabilities of task=binary"):
        METRIC.build_each({"foreground": {}}, target=Target())


def test_each_label_is_torchmetrics():
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(3, 4, 20, 30, generator=generator)
    target = (torch.rand(3, 4, 20, 30, generator=generator) < probabilities).to(torch.uint8)
    target[:, 2] = 0
    target[:, 3] = 255
    target[torch.rand(3, 4, 20, 30, generator=generator) < 0.1] = 255
    found = scores("labels", target, probabilities, (0.25,) * 4, SEVERAL)
    # torchmetrics drops pixels of which any label is unknown where there are several, so each on its own.
    for key, reference in (("iou", BinaryJaccardIndex), ("dice", BinaryF1Score)):
        expected = [
            float(
                reference(threshold=0.25, ignore_index=255)(probabilities[:, place], target[:, place].long())
            )
            for place in range(3)
        ]
        assert found[key].values == (*(pytest.approx(one, abs=1e-6) for one in expected), None)
    known = found["iou"].values[:3]
    assert known[2] == 0.0 and found["miou"].value == pytest.approx(sum(known) / 3)
    full = (torch.rand(3, 4, 20, 30, generator=generator) < probabilities).long()
    of_all = MultilabelJaccardIndex(4, threshold=0.25, average=None)(probabilities, full)
    mine = scores("labels", full, probabilities, (0.25,) * 4, SEVERAL)["iou"].values
    assert mine == pytest.approx(of_all.tolist(), abs=1e-6)


def test_each_label_has_its_own_threshold():
    generator = torch.Generator().manual_seed(2)
    probabilities = torch.rand(2, 2, 10, 10, generator=generator)
    target = (probabilities > torch.tensor([0.25, 0.75]).view(1, 2, 1, 1)).long()
    found = scores("labels", target, probabilities, None, SEVERAL)
    assert found["iou"].values == (1.0, 1.0)
    assert found["threshold"].values == pytest.approx((0.25, 0.75), abs=0.02)
    alike = scores("labels", target, probabilities, (0.5,), SEVERAL)
    assert alike["threshold"].values == (0.5, 0.5) and alike["miou"].value < 0.8
    with pytest.raises(ConfigError, match=r"metric\.labels scores the probabilities of task=multilabel"):
        scores("labels", target, probabilities, None, BINARY)


@pytest.mark.parametrize("absent", ["union", "gt", "zero", "one"])
@pytest.mark.parametrize(
    ("name", "kind", "key"), [("foreground", BINARY, "foreground_iou"), ("labels", SEVERAL, "miou")]
)
def test_values_of_resamples_are_the_scores(name, kind, key, absent):
    generator = torch.Generator().manual_seed(3)
    labels = 1 if kind.classes else 3
    probabilities = torch.rand(4, labels, 8, 8, generator=generator)
    target = (torch.rand(4, labels, 8, 8, generator=generator) < probabilities).to(torch.uint8)
    target[:, -1] *= 0 if absent == "gt" else 1  # a label that no image has
    metric = METRIC.build_each({name: {}}, thresholds=(0.25,), absent=absent, target=kind)[0]
    counts = metric.counts(target, probabilities=probabilities)
    weights = torch.tensor([[1, 1, 1, 1], [0, 2, 1, 1], [4, 0, 0, 0]])
    parts = metric.parts(counts.to_sparse())
    values = metric.resampled((weights.double() @ parts).numpy())
    for place, weight in enumerate(weights):
        expected = metric.scores((weight.view(4, 1, 1, 1) * counts).sum(0))[key].value
        assert values[key][place] == pytest.approx(math.nan if expected is None else expected, nan_ok=True)


def test_probabilities_of_labels_are_not_calibrated():
    with pytest.raises(ConfigError, match=r"metric\.calibration scores the probability"):
        METRIC.build_each({"calibration": {}}, target=SEVERAL, ignore_index=255)
