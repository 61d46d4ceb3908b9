"""Elastic deformation: smooth, joint, and of the strength asked for."""

import numpy as np
import pytest

from segtrain.augmentation import AUGMENTATION
from segtrain.sample import IGNORE, Sample, Target


def build(target=None, **options):
    runtime = {} if target is None else {"target": target}
    (op,) = AUGMENTATION.build_each({"elastic": options}, ignore_index=IGNORE, fill=(9, 9, 9), **runtime)
    return op


def positions(size=(120, 160)):
    """A sample whose image holds x and y, whose target holds blocks of 8 px and whose instances the same."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    image = np.stack([x, y, x], axis=2)
    target = (y // 8 % 8 * 8 + x // 8 % 8).astype(np.uint8)
    return Sample(image, target, target.astype(np.uint16) + 1, "positions")


def test_image_target_and_instances_are_deformed_alike():
    op = build(deviation=6.0)
    for seed in range(3):
        found = op(positions(), np.random.default_rng(seed))
        outside = found.target == IGNORE
        assert 0 < outside.mean() < 0.3
        assert (found.instances[outside] == 0).all() and np.allclose(found.image[outside], 9 / 255)
        x, y = found.image[..., 0], found.image[..., 1]
        # Away from the borders of blocks and of the image, the label is that of the position.
        inner = ~outside & (np.abs((x + 0.5) % 8 - 4) < 3.9) & (np.abs((y + 0.5) % 8 - 4) < 3.9)
        label = np.floor((y + 0.5) / 8) % 8 * 8 + np.floor((x + 0.5) / 8) % 8
        assert inner.mean() > 0.4 and np.array_equal(found.target[inner], label[inner])
        assert np.array_equal(found.instances[~outside], found.target[~outside] + 1)


def test_displacements_are_smooth_and_as_large_as_asked_for():
    size, moved = (120, 160), []
    for seed in range(40):
        found = build(deviation=4.0)(positions(size), np.random.default_rng(seed))
        field = found.image[..., 0] - np.arange(size[1])  # H×W px
        moved.append(field[size[0] // 2, size[1] // 2])  # a point of the grid
        inner = field[20:-20, 20:-20]
        assert np.abs(np.diff(inner, axis=1)).max() < 0.6
    assert np.std(moved) == pytest.approx(4.0, rel=0.3) and abs(np.mean(moved)) < 2


def test_the_field_is_bicubic():
    """Near an interpolating cubic spline through the same grid."""
    spline = pytest.importorskip("scipy.interpolate").RectBivariateSpline
    op, size = build(deviation=3.0, grid=4), (160, 160)
    found = op(positions(size), np.random.default_rng(1))
    rng = np.random.default_rng(1)
    rng.random()
    coarse = rng.normal(0, 3.0, (4, 4, 2))
    points = np.arange(4) * 40 + 19.5
    field = spline(points, points, coarse[..., 0])(np.arange(160), np.arange(160))
    inside = np.s_[40:120, 40:120]
    difference = (found.image[..., 0] - np.arange(160) - field)[inside]
    assert np.abs(difference).mean() < 0.4 and np.abs(field[inside]).max() > 2


def test_no_displacement_and_no_chance_leave_a_sample():
    sample = positions()
    still = build(deviation=0.0)(sample, np.random.default_rng(0))
    assert np.array_equal(still.image, sample.image) and np.array_equal(still.target, sample.target)
    assert build(probability=0.0)(sample, np.random.default_rng(0)) is sample


def test_measured_values_are_interpolated_and_unknown_ones_stay_unknown():
    sample = positions()
    sample.target = sample.image[..., 0].copy()
    sample.target[50:60, 50:60] = np.nan
    found = build(Target(False, "linear"), deviation=4.0)(sample, np.random.default_rng(0))
    known = np.isfinite(found.target)
    assert np.allclose(found.target[known], found.image[..., 0][known], atol=1e-3)
    assert 60 < np.isnan(found.target[30:80, 30:80]).sum() < 250
