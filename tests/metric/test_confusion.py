"""Scores by hand, against torchmetrics, and the rule for absent classes."""

import pytest
import torch

from segtrain.errors import ConfigError
from segtrain.metric import METRIC
from segtrain.sample import IGNORE, Number


def confusion(num_classes, absent="union"):
    return METRIC.build({"name": "confusion"}, num_classes=num_classes, ignore_index=IGNORE, absent=absent)


def plain(scores):
    """The values without their labels, lists for those by class."""
    return {key: one.value if isinstance(one, Number) else list(one.values) for key, one in scores.items()}


def test_matrix_by_hand():
    target = torch.tensor([[0, 0, 1, 2, IGNORE, 1]], dtype=torch.uint8)
    prediction = torch.tensor([[0, 1, 1, 0, 2, 1]])
    counts = confusion(3).counts(target, decisions=prediction)[0]
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    scores = plain(confusion(3).scores(counts))
    # Class 0: 1 of (2 true + 2 answered - 1); class 1: 2 of (2 + 3 - 2); class 2: labelled, never answered.
    assert scores["iou"] == pytest.approx([1 / 3, 2 / 3, 0.0])
    assert scores["dice"] == pytest.approx([2 / 4, 4 / 5, 0.0])
    assert scores["accuracy"] == pytest.approx([1 / 2, 1.0, 0.0])
    assert scores["miou"] == pytest.approx(1 / 3) and scores["pixel_accuracy"] == pytest.approx(3 / 5)
    assert scores["fw_iou"] == pytest.approx(2 / 5 / 3 + 2 / 5 * 2 / 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 37, 53), (3, 256, 300)])
def test_counts_equal_torchmetrics(dtype, shape):
    torchmetrics = pytest.importorskip("torchmetrics")
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, 19, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.1] = IGNORE
    prediction = torch.randint(0, 19, shape, generator=generator)
    oracle = torchmetrics.ConfusionMatrix(task="multiclass", num_classes=19, ignore_index=IGNORE)
    assert torch.equal(
        confusion(19).counts(target.to(dtype), decisions=prediction).sum(0), oracle(prediction, target)
    )


def test_counting_leaves_its_inputs_alone():
    target = torch.tensor([0, 1, 2, IGNORE], dtype=torch.int32)
    prediction = torch.tensor([0, 1, 1, 2], dtype=torch.int32)
    assert confusion(3).matrix(target, prediction).sum() == 3
    assert target.tolist() == [0, 1, 2, IGNORE] and prediction.tolist() == [0, 1, 1, 2]


def test_counts_add_up_over_images():
    generator = torch.Generator().manual_seed(2)
    target, prediction = (torch.randint(0, 5, (4, 20, 20), generator=generator) for _ in range(2))
    counts = confusion(5).counts(target, decisions=prediction)
    for i in range(4):
        assert torch.equal(counts[i], confusion(5).matrix(target[i], prediction[i]))
    assert torch.equal(counts.sum(0), confusion(5).matrix(target, prediction))


def test_dice_and_iou_are_one_number_seen_twice():
    generator = torch.Generator().manual_seed(3)
    scores = plain(confusion(6).scores(torch.randint(1, 1000, (6, 6), generator=generator)))
    assert scores["dice"] == pytest.approx([2 * iou / (1 + iou) for iou in scores["iou"]])


def test_answering_one_class_everywhere_scores_its_share_over_c():
    target = torch.tensor([0] * 73 + [1] * 17 + [2] * 10)
    scores = plain(confusion(3).scores(confusion(3).matrix(target, torch.zeros(100, dtype=torch.int64))))
    assert scores["miou"] == pytest.approx(scores["pixel_accuracy"] / 3)


ABSENT = torch.tensor([[5, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
"""Class 0 is right five times of six, class 3 is answered once and never labelled, 1 and 2 are nowhere."""


@pytest.mark.parametrize(
    ("rule", "others", "accuracy_of_3"),
    [
        ("union", [None, None, 0.0], None),
        ("gt", [None, None, None], None),
        ("zero", [0.0, 0.0, 0.0], 0.0),
        ("one", [1.0, 1.0, 0.0], 0.0),
    ],
)
def test_absent_classes(rule, others, accuracy_of_3):
    """Class 0: IoU 5 of 6, Dice 10 of 6 + 5, accuracy 5 of 6."""
    scores = plain(confusion(4, rule).scores(ABSENT))
    expected = {
        "iou": [5 / 6, *others],
        "dice": [10 / 11, *others],
        "accuracy": [5 / 6, *others[:2], accuracy_of_3],
    }
    for name, mean in (("iou", "miou"), ("dice", "mean_dice"), ("accuracy", "mean_accuracy")):
        known = [value for value in expected[name] if value is not None]
        assert scores[name] == pytest.approx(expected[name]), name
        assert scores[mean] == pytest.approx(sum(known) / len(known)), mean
    assert scores["present"] == 2


@pytest.mark.parametrize(
    ("rule", "means"), [("zero", (5 / 24, 10 / 44, 5 / 24)), ("one", (17 / 24, 8 / 11, 17 / 24))]
)
def test_means_with_absent_classes_by_hand(rule, means):
    scores = plain(confusion(4, rule).scores(ABSENT))
    found = tuple(scores[name] for name in ("miou", "mean_dice", "mean_accuracy"))
    assert found == pytest.approx(means)


def test_nothing_labelled_has_no_mean():
    scores = plain(confusion(3).scores(torch.zeros(3, 3, dtype=torch.int64)))
    means = ("pixel_accuracy", "mean_accuracy", "miou", "mean_dice", "fw_iou")
    assert [scores[name] for name in means] == [None] * 5 and scores["iou"] == [None] * 3


def test_an_ignore_index_among_the_classes_is_refused():
    with pytest.raises(ConfigError, match="ignore index 2 is one of the 3 classes"):
        METRIC.build({"name": "confusion"}, num_classes=3, ignore_index=2)


def test_a_negative_ignore_index_works():
    metric = METRIC.build({"name": "confusion"}, num_classes=2, ignore_index=-100)
    assert metric.matrix(torch.tensor([0, -100, 0]), torch.tensor([0, 1, 1])).tolist() == [[1, 1], [0, 0]]
