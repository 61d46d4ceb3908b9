"""Cross-entropy against torch's own and against numbers by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segtrain.data.survey.stats import Frequency
from segtrain.errors import ConfigError
from segtrain.loss import LOSS
from segtrain.loss.class_weights import class_weights
from segtrain.sample import IGNORE, Output, Window

FREQUENCY = Frequency(pixels=np.array([80, 15, 5, 0]), in_images=np.array([100, 100, 50, 0]))


def build(**options):
    config = {"name": "cross_entropy", **options}
    return LOSS.build(config, num_classes=4, ignore_index=IGNORE, class_frequency=lambda: FREQUENCY)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 6, 5, generator=generator)
    target = torch.randint(0, 4, (2, 6, 5), generator=generator).to(torch.uint8)
    target[torch.rand(2, 6, 5, generator=generator) < 0.2] = IGNORE
    return logits, target


def test_two_pixels_by_hand():
    logits = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).T.reshape(1, 2, 1, 2)  # pixel 0: (1, 0), pixel 1: (0, 0)
    loss = LOSS.build({"name": "cross_entropy"}, num_classes=2, ignore_index=IGNORE, class_frequency=None)
    total, weight = loss(Output(logits, (1, 2)), torch.tensor([[[0, 1]]], dtype=torch.uint8))
    assert total.item() == pytest.approx(math.log(1 + math.exp(-1)) + math.log(2), rel=1e-6)
    assert weight.item() == 2


@pytest.mark.parametrize(
    "options",
    [{}, {"class_weights": [1.0, 2.0, 0.5, 3.0]}, {"smoothing": 0.1, "class_weights": [1.0, 2.0, 0.5, 3.0]}],
)
def test_quotient_is_torchs_mean(options):
    logits, target = batch()
    total, weight = build(**options)(Output(logits, (6, 5)), target)
    weights = torch.tensor(options["class_weights"]) if "class_weights" in options else None
    expected = F.cross_entropy(
        logits, target.long(), weights, ignore_index=IGNORE, label_smoothing=options.get("smoothing", 0.0)
    )
    assert (total / weight).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_class_without_weight_has_no_loss_whatever_the_smoothing():
    logits, target = batch()
    weights = torch.tensor([0.0, 1.0, 2.0, 3.0])
    loss = build(class_weights=weights.tolist(), smoothing=0.1)
    logits.requires_grad_()
    total, weight = loss(Output(logits, (6, 5)), target)
    total.backward()
    # By hand: torch's formula, summed over the pixels whose class has a weight.
    nll = -logits.detach().log_softmax(1)
    smooth = (nll * weights[:, None, None]).sum(1) * 0.1 / 4
    labels = target.long().clamp(max=3)
    each = 0.9 * weights[labels] * nll.gather(1, labels[:, None])[:, 0] + smooth
    counted = (target != IGNORE) & (target != 0)
    torch.testing.assert_close(total.detach(), each[counted].sum())
    torch.testing.assert_close(weight, weights[labels][counted].sum())
    assert logits.grad[counted[:, None].expand_as(logits)].all()
    assert not logits.grad[~counted[:, None].expand_as(logits)].any()
    total, weight = loss(Output(logits, (6, 5), aux=(logits,)), torch.zeros_like(target))
    assert total.item() == 0 and weight.item() == 0


def test_nothing_labelled_is_exactly_zero():
    logits, target = batch()
    logits.requires_grad_()
    total, weight = build(class_weights="enet")(Output(logits, (6, 5)), torch.full_like(target, IGNORE))
    total.backward()
    assert total.item() == 0 and weight.item() == 0 and not logits.grad.any()


def test_ignored_pixels_get_no_gradient():
    logits, target = batch()
    logits.requires_grad_()
    build()(Output(logits, (6, 5)), target)[0].backward()
    ignored = (target == IGNORE)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any() and logits.grad[~ignored].all()


def test_logits_are_upsampled_and_targets_cropped():
    logits, target = batch()
    total, _ = build()(Output(logits[..., ::2, ::2][..., :2, :2], (4, 3), window=Window(1, 2, 4, 3)), target)
    full = F.interpolate(
        logits[..., ::2, ::2][..., :2, :2], size=(4, 3), mode="bilinear", align_corners=False
    )
    expected = F.cross_entropy(full, target[:, 1:5, 2:5].long(), ignore_index=IGNORE, reduction="sum")
    torch.testing.assert_close(total, expected)


def test_auxiliary_heads_count_by_their_factor():
    logits, target = batch()
    plain, _ = build()(Output(logits, (6, 5)), target)
    other, _ = build()(Output(logits.flip(1), (6, 5)), target)
    both, _ = build(aux_weight=0.4)(Output(logits, (6, 5), aux=(logits.flip(1),)), target)
    torch.testing.assert_close(both, plain + 0.4 * other)


def test_weights_by_hand():
    pixels, in_images = torch.tensor([80, 15, 5, 0]), torch.tensor([100, 100, 50, 0])
    # Shares of the images that hold the class: 0.8, 0.15, 0.1; their median is 0.15.
    median = [0.15 / 0.8, 1.0, 1.5, 1.0]
    assert class_weights("median", 1.0, pixels, in_images).tolist() == pytest.approx(median)
    assert class_weights("median", 0.5, pixels, in_images).tolist() == pytest.approx(
        [math.sqrt(value) for value in median]
    )
    enet = class_weights("enet", 1.0, pixels, in_images).tolist()
    assert enet == pytest.approx([1 / math.log(1.82), 1 / math.log(1.17), 1 / math.log(1.07), 1.0], rel=1e-6)
    # Shares of all labelled pixels: 0.8, 0.15, 0.05; their mean is 1/3.
    assert class_weights("inverse", 1.0, pixels, in_images).tolist() == pytest.approx(
        [1 / 2.4, 1 / 0.45, 1 / 0.15, 1.0]
    )


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match="3 numbers; the data has 4"):
        build(class_weights=[1.0, 2.0, 3.0])
    with pytest.raises(ConfigError, match=r"loss\.class_weights\[1\] is -1.0; allowed: a number from 0"):
        build(class_weights=[1.0, -1.0, 1.0, 1.0])
    with pytest.raises(ConfigError, match="is 0 for all classes"):
        build(class_weights=[0.0] * 4)
    for options in (
        {"class_weights": [0.0, 1.0, 1.0, 1.0], "weight_power": -1.0},
        {"class_weights": [1e30, 1.0, 1.0, 1.0], "weight_power": 10.0},
    ):
        with pytest.raises(ConfigError, match=r"loss\.weight_power=.* is infinite for some class"):
            build(**options)
    with pytest.raises(ConfigError, match=r"loss.aux_weight is -1.0"):
        build(aux_weight=-1.0)
    with pytest.raises(ConfigError, match=r"loss.smoothing is 1.0"):
        build(smoothing=1.0)
    with pytest.raises(ConfigError, match="did you mean 'median'"):
        build(class_weights="meadian")
