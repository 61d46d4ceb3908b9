"""Focal losses and binary cross-entropy against torch, torchvision and numbers by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from loss_batches import batch, built, mean_and_gradient
from torchvision.ops import sigmoid_focal_loss

from segtrain.errors import ConfigError
from segtrain.sample import IGNORE, Output

WEIGHTS = [1.0, 2.0, 0.5]


def of(name, logits, target, **options):
    return mean_and_gradient(built(name, **options)(Output(logits, target.shape[1:]), target), logits)


def one_hot(target, logits):
    """Labelled pixels alone: N×C logits and N×C one-hot targets."""
    valid = target != IGNORE
    return logits.movedim(1, -1)[valid], F.one_hot(target[valid].long(), 3).float()


def test_two_pixels_by_hand():
    # Pixel 0: probabilities 0.8 and 0.2 of classes 0 and 1, class 0; pixel 1: 0.5 each, class 1.
    logits = torch.tensor([[math.log(4.0), 0.0], [0.0, 0.0]]).T.reshape(1, 2, 1, 2)
    logits = torch.cat([logits, torch.full((1, 1, 1, 2), -1e4)], dim=1).requires_grad_()
    target = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    expected = (0.2**2 * -math.log(0.8) + 0.5**2 * math.log(2)) / 2
    assert of("focal_softmax", logits, target)[0].item() == pytest.approx(expected, rel=1e-5)
    # One sigmoid a class: of the three terms of a pixel, the third is 0 (logit -10 000).
    first = 0.2**2 * -math.log(0.8) + 0.5**2 * math.log(2)
    second = 0.5**2 * math.log(2) * 2
    value = of("focal_sigmoid", logits, target)[0].item()
    assert value == pytest.approx((first + second) / 2, rel=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_without_gamma_it_is_cross_entropy_exactly(weights):
    logits, target = batch()
    options = {} if weights is None else {"class_weights": weights}
    focal = of("focal_softmax", logits, target, gamma=0.0, **options)
    cross = of("cross_entropy", logits, target, **options)
    torch.testing.assert_close(focal, cross, rtol=0, atol=0)
    binary = of("binary_cross_entropy", logits, target, **options)
    torch.testing.assert_close(
        of("focal_sigmoid", logits, target, gamma=0.0, **options), binary, rtol=0, atol=0
    )


def test_binary_cross_entropy_is_torchs_and_smps():
    smp = pytest.importorskip("segmentation_models_pytorch")
    logits, target = batch()
    chosen, labels = one_hot(target, logits)
    expected = F.binary_cross_entropy_with_logits(chosen, labels, reduction="sum") / len(chosen)
    actual = of("binary_cross_entropy", logits, target)
    torch.testing.assert_close(actual, mean_and_gradient(expected, logits))
    torch.testing.assert_close(actual[0], 3 * smp.losses.SoftBCEWithLogitsLoss()(chosen, labels).detach())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("alpha", [None, 0.25, 0.0, 1.0])
def test_sigmoid_is_torchvisions(gamma, alpha):
    logits, target = batch()
    chosen, labels = one_hot(target, logits)
    expected = sigmoid_focal_loss(chosen, labels, -1 if alpha is None else alpha, gamma, "sum") / len(chosen)
    actual = of("focal_sigmoid", logits, target, gamma=gamma, alpha=alpha)
    torch.testing.assert_close(actual, mean_and_gradient(expected, logits))


def test_alpha_and_weights_of_each_class():
    logits, target = batch()
    chosen, labels = one_hot(target, logits)
    alpha, weights = torch.tensor([0.1, 0.5, 0.9]), torch.tensor(WEIGHTS)
    terms = sigmoid_focal_loss(chosen, labels, -1, 2.0, "none")
    terms = terms * (labels * alpha + (1 - labels) * (1 - alpha))
    each = labels @ weights
    expected = (terms.sum(1) * each).sum() / each.sum()
    actual = of("focal_sigmoid", logits, target, alpha=alpha.tolist(), class_weights=WEIGHTS)
    torch.testing.assert_close(actual, mean_and_gradient(expected, logits))
    # Of a softmax: alpha is in the numerator alone, class weights are also what it is divided by.
    nll = -(chosen.log_softmax(1) * labels).sum(1)
    terms = (1 - (-nll).exp()) ** 2 * nll
    expected = (terms * (labels @ alpha) * each).sum() / each.sum()
    actual = of("focal_softmax", logits, target, alpha=alpha.tolist(), class_weights=WEIGHTS)
    torch.testing.assert_close(actual, mean_and_gradient(expected, logits))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.5])
def test_softmax_is_smps(gamma):
    smp = pytest.importorskip("segmentation_models_pytorch")
    logits, target = batch(ignored=0.0)
    # smp's is one sigmoid a class; of two classes whose logits are z and 0, the softmax is the sigmoid of z.
    pair = torch.stack([logits[:, 0], torch.zeros_like(logits[:, 0]), torch.full_like(logits[:, 0], -1e4)], 1)
    labels = (target == 0).float()
    expected = smp.losses.FocalLoss("binary", gamma=gamma)(logits[:, 0], labels)
    loss = built("focal_softmax", gamma=gamma)(Output(pair, (6, 5)), 1 - labels.to(torch.uint8))
    torch.testing.assert_close(mean_and_gradient(loss, logits), mean_and_gradient(expected, logits))


@pytest.mark.parametrize("name", ["focal_softmax", "focal_sigmoid"])
def test_more_gamma_is_less_loss(name):
    logits, target = batch()
    values = [of(name, logits, target, gamma=gamma)[0].item() for gamma in (0.0, 0.5, 1.0, 2.0, 5.0)]
    assert values == sorted(values, reverse=True) and values[-1] > 0


def test_confident_pixels_have_an_exact_small_loss():
    # 1 - p is 2e-9 here, which 1 - p in float32 is not.
    logits = torch.tensor([20.0, -20.0, -20.0]).reshape(1, 3, 1, 1).requires_grad_()
    value, gradient = of("focal_sigmoid", logits, torch.zeros(1, 1, 1, dtype=torch.uint8), gamma=1.0)
    assert value.item() == pytest.approx(3 * math.exp(-40), rel=1e-4)
    assert gradient[0, 0].item() == pytest.approx(-2 * math.exp(-40), rel=1e-4)


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match=r"loss\.alpha holds 2 numbers; the data has 3 classes"):
        built("focal_softmax", alpha=[0.5, 0.5])
    with pytest.raises(ConfigError, match=r"loss\.alpha is 1\.5; allowed"):
        built("focal_sigmoid", alpha=1.5)
    with pytest.raises(ConfigError, match=r"loss\.class_weights holds 2 numbers"):
        built("focal_sigmoid", class_weights=[0.5, 0.5])
