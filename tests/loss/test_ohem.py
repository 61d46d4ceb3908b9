"""Hard pixels against a slow version by hand."""

import math

import pytest
import torch
from loss_batches import batch, built, mean_and_gradient

from segtrain.errors import ConfigError
from segtrain.loss.ohem import share_at
from segtrain.sample import IGNORE, Output


def slow(logits, target, count, threshold=None, weights=(1.0, 1.0, 1.0)):
    """Mean loss of the `count` hardest pixels and of those below the threshold, pixel by pixel."""
    pixels = []
    for image, row, column in (target != IGNORE).nonzero().tolist():
        scores, label = logits[image, :, row, column], target[image, row, column].item()
        pixels.append((scores.softmax(0)[label].item(), -scores.log_softmax(0)[label], weights[label]))
    pixels.sort(key=lambda pixel: pixel[0])
    hard = [pixel for i, pixel in enumerate(pixels) if i < count or (threshold and pixel[0] < threshold)]
    return sum(loss * weight for _, loss, weight in hard) / sum(weight for *_, weight in hard), len(hard)


@pytest.mark.parametrize(
    ("options", "count", "threshold"),
    [
        ({"threshold": 0.3, "min_kept": 0}, 0, 0.3),
        ({"threshold": 0.001, "min_kept": 6}, 12, 0.001),  # six of each of two images
        ({"threshold": 0.3, "min_kept": 1000}, 1000, 0.3),
        ({"threshold": 0.001}, 3, 0.001),  # a sixteenth of 48 labelled pixels
        ({"top_k": 0.25}, 12, None),
        ({"top_k": 0.001}, 1, None),
        ({"top_k": 1.0}, 48, None),
    ],
)
@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
def test_equals_the_slow_version(options, count, threshold, weights):
    logits, target = batch()
    assert (target != IGNORE).sum() == 48
    expected, kept = slow(logits, target, count, threshold, weights or (1.0, 1.0, 1.0))
    given = options if weights is None else {**options, "class_weights": weights}
    loss = built("ohem", **given)(Output(logits, (6, 5)), target)
    value, gradient = mean_and_gradient(loss, logits)
    torch.testing.assert_close((value, gradient), mean_and_gradient(expected, logits))
    assert loss[1] == 2 and gradient.any(1).sum() == kept


def test_all_pixels_are_cross_entropy():
    logits, target = batch()
    cross = built("cross_entropy")(Output(logits, (6, 5)), target)
    hard = built("ohem", top_k=1.0)(Output(logits, (6, 5)), target)
    torch.testing.assert_close(mean_and_gradient(hard, logits), mean_and_gradient(cross, logits))


def test_nothing_hard_is_no_loss():
    logits = torch.tensor([9.0, 0.0, 0.0]).reshape(1, 3, 1, 1).requires_grad_()
    target = torch.zeros(1, 1, 1, dtype=torch.uint8)
    total, weight = built("ohem", threshold=0.5, min_kept=0)(Output(logits, (1, 1)), target)
    total.backward()
    assert total == 0 and weight == 1 and not logits.grad.any()


def test_the_share_falls_linearly_by_optimizer_steps():
    shares = [share_at(step, 0.25, 300) for step in (0, 100, 200, 300, 10_000)]
    assert shares == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.25])
    assert share_at(0, 0.25, 0) == 0.25
    logits, target = batch(ignored=0.0)
    loss = built("ohem", top_k=0.1, ramp_steps=4)
    kept = []
    for step in range(6):
        _, gradient = mean_and_gradient(loss(Output(logits, (6, 5), step=step), target), logits)
        kept.append(gradient.any(1).sum().item())
    assert kept == [60, 46, 33, 20, 6, 6]  # 60 pixels, less 13.5 a step


def test_the_step_reaches_auxiliary_heads_and_sums():
    logits, target = batch(ignored=0.0)
    output = Output(logits, (6, 5), aux=(2 * logits,), step=1000)
    hard = built("ohem", top_k=0.1, ramp_steps=4)
    main, aux = (hard(Output(one, (6, 5), step=4), target)[0] for one in (logits, 2 * logits))
    torch.testing.assert_close(hard(output, target)[0], main + 0.4 * aux)
    summed = built("weighted_sum", terms={"ohem": {"top_k": 0.1, "ramp_steps": 4, "factor": 2.0}})
    torch.testing.assert_close(summed(output, target)[0], 2 * hard(output, target)[0])


def test_options_that_exclude_each_other_are_refused():
    with pytest.raises(ConfigError, match=r"loss\.ramp_steps=5 needs loss\.top_k"):
        built("ohem", ramp_steps=5)
    with pytest.raises(ConfigError, match=r"loss\.top_k=0\.5 and loss\.min_kept=3 exclude each other"):
        built("ohem", top_k=0.5, min_kept=3)
    with pytest.raises(ConfigError, match=r"loss\.threshold"):
        built("ohem", threshold=math.pi)
