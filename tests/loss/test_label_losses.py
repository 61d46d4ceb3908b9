"""Losses of labels, each with a sigmoid of its own, against torch, torchvision and the losses of classes."""

import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss
from torchvision.ops import sigmoid_focal_loss

from segtrain.errors import ConfigError
from segtrain.loss import LOSS
from segtrain.sample import IGNORE, Output, Target

ONE, SEVERAL = Target(labels=True), Target(classes=False, labels=True)
LOSSES = ("binary_cross_entropy", "dice", "focal_sigmoid", "jaccard", "tversky")


def built(name, target, num_classes=2, **options):
    return LOSS.build(
        {"name": name, **options},
        num_classes=num_classes,
        ignore_index=IGNORE,
        class_frequency=None,
        target=target,
        task_activation="sigmoid",
    )


def batch(labels: int, seed=0):
    """2×T×6×5 logits with a gradient, uint8 targets of the same shape, a fifth of them unknown."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, labels, 6, 5, generator=generator)
    target = (torch.rand(2, labels, 6, 5, generator=generator) < 0.4).to(torch.uint8)
    target[torch.rand(2, labels, 6, 5, generator=generator) < 0.2] = IGNORE
    return logits.requires_grad_(), target


def mean(loss, logits, target, aux=()):
    total, weight = loss(Output(logits, logits.shape[-2:], aux), target)
    return total / weight


@pytest.mark.parametrize(("labels", "kind"), [(1, ONE), (3, SEVERAL)])
def test_cross_entropy_and_focal(labels, kind):
    logits, target = batch(labels)
    given = target[:, 0] if kind is ONE else target
    known = target != IGNORE
    chosen, truth = logits[known], target[known].float()
    expected = F.binary_cross_entropy_with_logits(chosen, truth)
    num_classes = 2 if kind is ONE else labels
    actual = mean(built("binary_cross_entropy", kind, num_classes), logits, given)
    torch.testing.assert_close(actual, expected)
    actual = mean(built("focal_sigmoid", kind, num_classes, gamma=1.5, alpha=0.25), logits, given)
    torch.testing.assert_close(actual, sigmoid_focal_loss(chosen, truth, 0.25, 1.5, "mean"))
    (gradient,) = torch.autograd.grad(actual, logits)
    assert (gradient[~known] == 0).all() and (gradient[known] != 0).all()


def test_dice_of_the_foreground_and_of_each_label():
    logits, target = batch(3)
    known = (target != IGNORE).float()
    probabilities, truth = logits.sigmoid() * known, (target == 1).float()
    sums = [(one).sum((0, 2, 3)) for one in (probabilities * truth, probabilities, truth)]
    each = 1 - (2 * sums[0] + 1) / (sums[1] + sums[2] + 1)
    torch.testing.assert_close(mean(built("dice", SEVERAL, 3), logits, target), each.mean())
    torch.testing.assert_close(mean(built("dice", ONE), logits[:, :1], target[:, 0]), each[0])
    whole = truth[:, 0].long()
    reference = DiceLoss("binary", smooth=1e-6)(logits[:, :1], whole)
    torch.testing.assert_close(mean(built("dice", ONE, smooth=1e-6), logits[:, :1], whole), reference)
    alike = mean(built("tversky", ONE, alpha=0.5, beta=0.5, smooth=0.5), logits[:, :1], target[:, 0])
    torch.testing.assert_close(alike, each[0])
    overlap = 1 - (sums[0] + 1) / (sums[1] + sums[2] - sums[0] + 1)
    torch.testing.assert_close(mean(built("jaccard", SEVERAL, 3), logits, target), overlap.mean())


def test_one_label_is_a_softmax_of_two_classes():
    """Logits 0 and z of a softmax have the probabilities of a sigmoid of z."""
    logits, target = batch(1)
    target = target[:, 0]
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    classes = LOSS.build({"name": "cross_entropy"}, num_classes=2, ignore_index=IGNORE, class_frequency=None)
    torch.testing.assert_close(
        mean(built("binary_cross_entropy", ONE), logits, target), mean(classes, two, target)
    )
    weights = [1.0, 3.0]
    weighted = LOSS.build(
        {"name": "cross_entropy", "class_weights": weights},
        num_classes=2,
        ignore_index=IGNORE,
        class_frequency=None,
    )
    torch.testing.assert_close(
        mean(built("binary_cross_entropy", ONE, class_weights=weights), logits, target),
        mean(weighted, two, target),
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("labels", "kind"), [(1, ONE), (3, SEVERAL)])
def test_auxiliary_heads_windows_and_unknown_targets(name, labels, kind):
    logits, target = batch(labels)
    given = target[:, 0] if kind is ONE else target
    loss = built(name, kind, 2 if kind is ONE else labels)
    alone = mean(loss, logits, given)
    torch.testing.assert_close(mean(loss, logits, given, (logits,)), 1.4 * alone)
    total, weight = loss(Output(logits, logits.shape[-2:]), torch.full_like(given, IGNORE))
    assert total == 0 and weight == 0
    # Pixels without the label cost something: no foreground in the batch is a target too.
    if name in ("binary_cross_entropy", "focal_sigmoid"):
        assert mean(loss, logits, torch.zeros_like(given)) > 0


def test_what_needs_classes_is_refused():
    for name in ("cross_entropy", "cldice", "focal_softmax", "lovasz_softmax", "ohem"):
        with pytest.raises(ConfigError, match=f"loss={name} compares classes that exclude each other"):
            built(name, ONE)
    with pytest.raises(ConfigError, match="has any number of labels"):
        built("binary_cross_entropy", SEVERAL, 3, class_weights=[1.0, 2.0, 3.0])
    with pytest.raises(ConfigError, match="the network has 1 output"):
        built("focal_sigmoid", ONE, alpha=[0.2, 0.8])
