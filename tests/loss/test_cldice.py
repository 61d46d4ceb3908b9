"""Soft clDice against grey morphology of scipy and numbers by hand."""

import numpy as np
import pytest
import torch
from loss_batches import CLASSES, batch, built
from scipy import ndimage

from segtrain.errors import ConfigError
from segtrain.loss import LOSS
from segtrain.loss.cldice import skeleton
from segtrain.sample import IGNORE, Facts, Output

CROSS = ndimage.generate_binary_structure(2, 1)
FACTS = Facts(("background", "road", "wire"), ((0, 0, 0),) * 3)


def slow_skeleton(x, iterations):
    """Soft skeleton of an H×W array by scipy's grey erosion and dilation."""

    def eroded(x):
        return ndimage.grey_erosion(x, footprint=CROSS, mode="constant", cval=np.inf)

    def opened(x):
        return ndimage.grey_dilation(eroded(x), size=(3, 3), mode="constant", cval=-np.inf)

    found = np.maximum(x - opened(x), 0)
    for _ in range(iterations):
        x = eroded(x)
        removed = np.maximum(x - opened(x), 0)
        found = found + np.maximum(removed - found * removed, 0)
    return found


def slow_loss(probabilities, target, chosen, iterations, smooth):
    """The loss from B×C×H×W probabilities, one class after the other."""
    losses = []
    for index in chosen:
        truth = (target == index).astype(np.float64)
        if not truth.any():
            continue
        guess = np.where(target == IGNORE, 0.0, probabilities[:, index])
        lines = [np.stack([slow_skeleton(one, iterations) for one in maps]) for maps in (guess, truth)]
        precision = ((lines[0] * truth).sum() + smooth) / (lines[0].sum() + smooth)
        sensitivity = ((lines[1] * guess).sum() + smooth) / (lines[1].sum() + smooth)
        losses.append(1 - 2 * precision * sensitivity / (precision + sensitivity))
    return np.mean(losses)


def line(width, gap=0):
    """1×24×24 target: class 1 in a horizontal bar of `width` pixels, with a gap."""
    target = torch.zeros(1, 24, 24, dtype=torch.uint8)
    target[:, 8 : 8 + width] = 1
    target[:, :, 12 : 12 + gap] = 0
    return target


def sure(target):
    return Output(100 * torch.nn.functional.one_hot(target.long(), CLASSES).movedim(-1, 1).float(), (24, 24))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("iterations", "smooth"), [(1, 1.0), (4, 0.1)])
def test_equals_the_slow_version(activation, iterations, smooth):
    logits, target = batch(height=14, width=11, scale=3.0)
    total, weight = built("cldice", activation, iterations=iterations, smooth=smooth)(
        Output(logits, (14, 11)), target
    )
    probabilities = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
    expected = slow_loss(
        probabilities.detach().double().numpy(), target.numpy(), range(3), iterations, smooth
    )
    assert (total / weight).item() == pytest.approx(expected, rel=1e-5)


def test_the_skeleton_of_a_bar_is_its_middle():
    bar = (line(5) == 1).float()[None]
    found = skeleton(bar, 3)[0, 0]
    assert found[10, 4:-4].eq(1).all() and found[:, 4:-4].sum() == 16
    assert not skeleton(bar, 1)[..., 4:-4].any()  # the bar is wider than one erosion shows


def test_a_broken_line_costs_more_than_a_thin_one():
    loss = built("cldice", classes=None, smooth=0.001)
    truth, thin, broken = line(5), line(5), line(5, gap=6)
    thin[:, 8], thin[:, 12] = 0, 0  # one pixel less on both sides, more pixels than the gap has
    values = [loss(sure(answer), truth)[0].item() for answer in (truth, thin, broken)]
    assert values[0] == pytest.approx(0, abs=1e-3)
    # Class 0 counts in all of them; the middle of class 1 is covered by the thin bar.
    chosen = LOSS.build(
        {"name": "cldice", "classes": ["road"], "smooth": 0.001},
        num_classes=CLASSES,
        ignore_index=IGNORE,
        facts=FACTS,
    )
    thin_value, broken_value = (chosen(sure(answer), truth)[0].item() for answer in (thin, broken))
    assert thin_value == pytest.approx(0, abs=1e-3)
    # A quarter of the middle is missing: sensitivity 0.75, precision 1.
    assert broken_value == pytest.approx(1 - 1.5 / 1.75, abs=0.02)


def test_classes_are_chosen_by_name():
    def chosen(classes):
        runtime = {"num_classes": CLASSES, "ignore_index": IGNORE, "facts": FACTS}
        return LOSS.build({"name": "cldice", "classes": classes}, **runtime).chosen.tolist()

    assert chosen(None) == [1, 2] and chosen(["wire"]) == [2]
    with pytest.raises(ConfigError, match=r"'wyre', which is no class of the data \(did you mean 'wire'"):
        chosen(["wyre"])
    with pytest.raises(ConfigError, match=r"loss\.classes is \[\]"):
        chosen([])


def test_a_chosen_class_that_is_absent_is_no_loss():
    logits, target = batch(height=8, width=8)
    target[target == 2] = 0
    loss = LOSS.build(
        {"name": "cldice", "classes": ["wire"]}, num_classes=CLASSES, ignore_index=IGNORE, facts=FACTS
    )
    total, weight = loss(Output(logits, (8, 8)), target)
    total.backward()
    assert total == 0 and weight == 2 and not logits.grad.any()
