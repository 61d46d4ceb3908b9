"""The weights between objects, against distances measured one by one."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segtrain.errors import ConfigError
from segtrain.loss import LOSS
from segtrain.loss.border import Border
from segtrain.sample import IGNORE, Facts, Output, Window

FACTS = Facts(classes=("background", "cell", "other"), palette=((0, 0, 0),) * 3)


def build(facts=FACTS, name="cross_entropy", **options):
    return LOSS.build(
        {"name": name, **options}, num_classes=3, ignore_index=IGNORE, class_frequency=None, facts=facts
    )


def test_a_line_by_hand():
    """Two cells three pixels apart: between them d1 + d2 is 4 all along; next to the first, d1 = 1 and d2 =
    5."""
    target = torch.tensor([[[0, 0, 1, 1, 0, 0, 0, 1, 0]]], dtype=torch.uint8)
    found = Border(10.0, 2.0, (1,))(target)[0, 0]
    sums = [2 + 7, 1 + 6, 0 + 5, 0 + 4, 1 + 3, 2 + 2, 3 + 1, 0 + 4, 1 + 5]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([10 * math.exp(-(s**2) / 8) for s in sums]))


def cells(seed=0, side=40):
    rng = np.random.default_rng(seed)
    target = np.zeros((side, side), np.uint8)
    for _ in range(9):
        top, left = rng.integers(0, side - 5, 2)
        target[top : top + rng.integers(2, 6), left : left + rng.integers(2, 6)] = rng.integers(1, 3)
    return target


def parts_of(target, classes):
    """Connected parts by flooding from pixel to pixel."""
    left = {(y, x) for y, x in np.argwhere(np.isin(target, classes)).tolist()}
    while left:
        start = left.pop()
        part, edge = [start], [start]
        while edge:
            y, x = edge.pop()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left and target[near] == target[start]:
                    left.remove(near)
                    part.append(near)
                    edge.append(near)
        yield np.array(part)


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_every_pixel_against_all_pixels_of_all_objects(sigma):
    targets = np.stack([cells(seed) for seed in range(3)])
    found = Border(10.0, sigma, (1, 2))(torch.from_numpy(targets)).numpy()
    grid = np.stack(np.mgrid[:40, :40], -1).reshape(-1, 1, 2)
    for target, one in zip(targets, found, strict=True):
        distances = np.sort(
            [np.linalg.norm(grid - part, axis=2).min(1) for part in parts_of(target, (1, 2))], axis=0
        )
        assert len(distances) >= 4
        expected = 10 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2)).reshape(40, 40)
        assert np.abs(one - expected).max() < 1e-5
    assert found.max() > 1


def test_a_slanting_line_of_one_pixel_separates():
    target = np.ones((12, 12), np.uint8)
    target[np.arange(12), np.arange(12)] = 0
    found = Border(1.0, 5.0, (1,))(torch.from_numpy(target)[None])[0]
    assert found[6, 6].item() == pytest.approx(math.exp(-(2**2) / 50))


def test_one_object_or_none_adds_nothing():
    target = torch.zeros(2, 9, 9, dtype=torch.uint8)
    target[1, 2:4, 2:5] = 1
    assert not Border(10.0, 5.0, (1,))(target).any()


@pytest.mark.parametrize("options", [{}, {"class_weights": [0.5, 2.0, 1.0]}, {"smoothing": 0.2}])
def test_loss_is_the_weighted_mean(options):
    targets = torch.from_numpy(np.stack([cells(1), cells(2)]))
    targets[0, 5:9] = IGNORE
    logits = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0), requires_grad=True)
    total, weight = build(border_weight=10.0, border_sigma=3.0, **options)(Output(logits, (40, 40)), targets)
    plain, plain_weight = build(**options)(Output(logits, (40, 40)), targets)
    border, valid = Border(10.0, 3.0, (1, 2))(targets), targets != IGNORE
    each = F.cross_entropy(
        logits,
        targets.long(),
        ignore_index=IGNORE,
        reduction="none",
        label_smoothing=options.get("smoothing", 0.0),
    )
    torch.testing.assert_close(total, plain + (border * each).sum())
    torch.testing.assert_close(weight, plain_weight + border[valid].sum())
    total.backward()
    assert not logits.grad[:, :, 5:9][0].any()


def test_nothing_labelled_is_zero():
    targets = torch.full((1, 8, 8), IGNORE, dtype=torch.uint8)
    total, weight = build(border_weight=10.0)(Output(torch.randn(1, 3, 8, 8), (8, 8)), targets)
    assert total.item() == 0 and weight.item() == 0


def test_objects_beyond_the_window_count():
    target = torch.zeros(1, 9, 20, dtype=torch.uint8)
    target[:, :, 2] = target[:, :, 8] = 1  # the window begins behind the first one
    loss = build(border_weight=10.0, border_sigma=4.0)
    _, weight = loss(Output(torch.randn(1, 3, 9, 16), (9, 16), window=Window(0, 4, 9, 16)), target)
    expected = 9 * 16 + Border(10.0, 4.0, (1,))(target)[:, :, 4:].sum()
    assert weight.item() == pytest.approx(expected.item()) and expected > 9 * 16 + 10


def test_which_classes_are_objects():
    def classes(facts):
        return build(facts=facts, border_weight=1.0).border.classes

    assert classes(FACTS) == (1, 2)
    assert classes(Facts(FACTS.classes, FACTS.palette, things=(2,))) == (2,)
    assert classes(Facts(("sky", "cell", "other"), FACTS.palette)) == (0, 1, 2)
    assert build().border is None
    summed = build(name="weighted_sum", terms={"cross_entropy": {"border_weight": 1.0}, "jaccard": {}})
    assert summed.losses[0].border.classes == (1, 2)


@pytest.mark.parametrize(
    ("options", "key"), [({"border_weight": -1.0}, "border_weight"), ({"border_sigma": 0.0}, "border_sigma")]
)
def test_impossible_options_are_refused(options, key):
    with pytest.raises(ConfigError, match=rf"loss\.{key} is .*allowed"):
        build(**options)
