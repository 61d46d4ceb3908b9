"""Dice, Jaccard and Tversky against segmentation_models_pytorch and numbers by hand."""

import pytest
import torch
import torch.nn.functional as F
from loss_batches import batch, built, mean_and_gradient

from segtrain.errors import ConfigError
from segtrain.sample import IGNORE, Output

smp = pytest.importorskip("segmentation_models_pytorch")


def of(name, logits, target, activation="softmax", **options):
    loss = built(name, activation, **options)(Output(logits, target.shape[1:]), target)
    return mean_and_gradient(loss, logits)


@pytest.mark.parametrize("smooth", [0.0, 1.0, 7.5])
@pytest.mark.parametrize(
    ("name", "reference"),
    [("dice", smp.losses.DiceLoss), ("jaccard", smp.losses.JaccardLoss), ("tversky", smp.losses.TverskyLoss)],
)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_smp(name, reference, smooth, activation):
    logits, target = batch(ignored=0.2 if activation == "softmax" else 0.0)
    options = {"alpha": 0.3, "beta": 0.7} if name == "tversky" else {}
    ours = 2 * smooth if name == "dice" else smooth  # smp halves numerator and denominator
    if activation == "softmax":
        ignore = {} if name == "jaccard" else {"ignore_index": IGNORE}
        if name == "jaccard":
            target = target.clamp(max=2)  # smp's has no ignore index
        expected = reference("multiclass", smooth=smooth, **ignore, **options)(logits, target.long())
    else:
        labels = F.one_hot(target.long(), 3).movedim(-1, 1)
        expected = reference("multilabel", smooth=smooth, **options)(logits, labels)
    actual = of(name, logits, target, activation, smooth=ours, **options)
    torch.testing.assert_close(actual, mean_and_gradient(expected, logits))


def test_two_pixels_by_hand():
    probabilities = torch.tensor([(0.6, 0.3, 0.1), (0.2, 0.7, 0.1)])
    logits = probabilities.log().T.reshape(1, 3, 1, 2).requires_grad_()
    target = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    # Class 0: 0.6 of 0.8 + 1; class 1: 0.7 of 1.0 + 1; class 2, absent: 0 of 0.2.
    first, second, third = (1.2 + 1) / (1.8 + 1), (1.4 + 1) / (2 + 1), 1 / 1.2
    assert of("dice", logits, target)[0].item() == pytest.approx(1 - (first + second) / 2)
    everything = of("dice", logits, target, classes="all")[0].item()
    assert everything == pytest.approx(1 - (first + second + third) / 3)
    squares = [1.2 / (0.36 + 0.04 + 1), 1.4 / (0.09 + 0.49 + 1)]
    squared = of("dice", logits, target, smooth=0.0, squared=True)[0].item()
    assert squared == pytest.approx(1 - sum(squares) / 2)
    # Tversky: false positives 0.2 and 0.3, false negatives 0.4 and 0.3.
    indices = [0.6 / (0.6 + 0.3 * 0.2 + 0.7 * 0.4), 0.7 / (0.7 + 0.3 * 0.3 + 0.7 * 0.3)]
    value = of("tversky", logits, target, smooth=0.0)[0].item()
    assert value == pytest.approx(1 - sum(indices) / 2)


@pytest.mark.parametrize("smooth", [0.0, 2.0])
def test_tversky_is_dice_and_jaccard(smooth):
    logits, target = batch()
    torch.testing.assert_close(
        of("tversky", logits, target, alpha=0.5, beta=0.5, smooth=smooth / 2),
        of("dice", logits, target, smooth=smooth),
    )
    torch.testing.assert_close(
        of("tversky", logits, target, alpha=1.0, beta=1.0, smooth=smooth),
        of("jaccard", logits, target, smooth=smooth),
    )


def test_sure_answers_give_dice_of_iou():
    _, target = batch(ignored=0.0)
    _, answer = batch(ignored=0.0, seed=1)
    logits = (100 * F.one_hot(answer.long(), 3).movedim(-1, 1).float()).requires_grad_()
    pairs = [
        (((answer == i) & (target == i)).sum().item(), ((answer == i) | (target == i)).sum().item())
        for i in range(3)
    ]
    ious = [inside / union for inside, union in pairs]
    expected = 1 - sum(2 * iou / (1 + iou) for iou in ious) / 3
    assert of("dice", logits, target, smooth=0.0)[0].item() == pytest.approx(expected, abs=1e-6)


def test_an_absent_class_is_pushed_down_only_if_all_classes_count():
    logits, target = batch()
    target[target == 2] = 0
    for classes, pushed in (("present", False), ("all", True)):
        _, gradient = of("dice", logits, target, activation="sigmoid", classes=classes)
        assert gradient[:, 2].any() == pushed
        assert not pushed or (gradient[:, 2][target != IGNORE] > 0).all()


@pytest.mark.parametrize("name", ["dice", "tversky"])
def test_all_classes_need_smooth(name):
    with pytest.raises(ConfigError, match=r"loss\.classes=all needs loss\.smooth above 0"):
        built(name, classes="all", smooth=0.0)
