"""Objects moved, scaled, turned and mirrored, on scenes made by hand."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from segtrain.augmentation import AUGMENTATION
from segtrain.augmentation.object_affine import RING_PX
from segtrain.augmentation.objects import without_hidden
from segtrain.errors import ConfigError
from segtrain.sample import CLASSES, IGNORE, Facts, Sample, Target

FACTS = Facts(("ground", "wall", "a", "b"), ((0, 0, 0),) * 4, things=(2, 3))
STILL = {"probability": 1.0, "scale": [1.0, 1.0], "rotate": 0.0, "shift": 0.0, "flip": 0.0}


def scene(instances=True, size=(160, 200)):
    """Ground with a wall in the upper half, both of noise; a disc of class 2 (number 300, radius 20) on the
    edge between them, a bar of class 3 (number 7) on the ground; one at the border (class 3, number 9)."""
    rng = np.random.default_rng(0)
    target, numbers = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
    target[: size[0] // 2] = 1
    disc = cv2.circle(np.zeros(size, np.uint8), (60, 80), 20, 1, -1) > 0
    target[disc], numbers[disc] = 2, 300
    target[110:130, 120:160], numbers[110:130, 120:160] = 3, 7
    target[140:, 180:], numbers[140:, 180:] = 3, 9
    image = (target[..., None] * 60 + rng.integers(0, 20, (*size, 3))).astype(np.uint8)
    return Sample(image, target, numbers if instances else None, "scene")


def build(facts=FACTS, target=CLASSES, **options):
    (op,) = AUGMENTATION.build_each(
        {"object_affine": {"probability": 1.0, **options}}, facts=facts, ignore_index=IGNORE, target=target
    )
    return op


def ring(sample, width=RING_PX):
    """H×W bool: within `width` of the border of an object, on either side."""
    mask = (sample.target >= 2).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    return (cv2.dilate(mask, kernel) > 0) & (cv2.erode(mask, kernel) == 0)


@pytest.mark.parametrize("instances", [True, False])
def test_nothing_moved_is_the_original_outside_the_ring(instances):
    sample = scene(instances)
    kept = sample.image.copy(), sample.target.copy()
    found = build(**STILL)(sample, np.random.default_rng(0))
    assert np.array_equal(found.target, sample.target)
    assert not instances or np.array_equal(found.instances, sample.instances)
    changed = (found.image != sample.image).any(2)
    assert changed.any() and not (changed & ~ring(sample)).any()
    assert np.array_equal(sample.image, kept[0]) and np.array_equal(sample.target, kept[1])
    sharp = build(**STILL, feather=0.0)(sample, np.random.default_rng(0))
    inside = sample.target == 2
    assert np.array_equal(sharp.image[inside], sample.image[inside])


@pytest.mark.parametrize("seed", range(6))
def test_only_the_hole_and_the_new_place_change(seed):
    """Of one object on plain ground, told by its colour."""
    sample = scene()
    sample.target[sample.target == 3], sample.instances[sample.instances != 300] = 0, 0
    sample.image[:] = sample.target[..., None] * 60
    found = build(shift=0.5, feather=0.0)(sample, np.random.default_rng(seed))
    mask = (sample.target == 2).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RING_PX + 1, 2 * RING_PX + 1))
    hole, pasted = cv2.dilate(mask, kernel) > 0, found.target == 2
    assert pasted.sum() > 500 and not np.array_equal(pasted, mask)
    near = cv2.dilate(pasted.astype(np.uint8), np.ones((3, 3))) > 0  # bilinear edge
    away = ~hole & ~near
    for name in ("image", "target", "instances"):
        assert np.array_equal(getattr(found, name)[away], getattr(sample, name)[away])
    assert np.array_equal(found.instances == 300, pasted)
    # The object's colour is at its new place, and nowhere else; the hole has the background's labels.
    inner = cv2.erode(pasted.astype(np.uint8), np.ones((3, 3))) > 0
    assert (found.image[inner] == 120).all()
    assert (np.abs(found.image[..., 0].astype(int) - 120)[~near] > 50).all()
    assert set(np.unique(found.target)) == {0, 1, 2}
    left = (mask > 0) & ~pasted
    rows = np.flatnonzero(left.any(1))
    assert all((found.target[row][left[row]] == (1 if row < 80 else 0)).mean() > 0.6 for row in rows[[0, -1]])


def test_touching_objects_that_stay_are_not_cut():
    """Of another touching object neither colours nor labels change, but for the soft edge of what is pasted."""
    sample = scene()
    there = np.s_[110:130, 100:120]
    sample.target[there], sample.instances[there], sample.image[there] = 2, 8, 200
    found = build(**{**STILL, "shift": 0.01}, classes={"b": 1.0}, feather=0.0)(
        sample, np.random.default_rng(0)
    )
    for name in ("image", "target", "instances"):
        assert np.array_equal(getattr(found, name)[there], getattr(sample, name)[there])


def test_labels_of_the_hole_are_those_of_the_nearest_background():
    sample = scene(instances=False)
    found = build(classes={"a": 1.0}, **{**STILL, "shift": 5.0})(sample, np.random.default_rng(2))
    hole = (sample.target == 2) & (found.target != 2)
    background = np.argwhere(sample.target < 2)
    distances = [
        min(((background - place) ** 2).sum(1)[sample.target[tuple(background.T)] == label]) ** 0.5
        for place in np.argwhere(hole)[::97]
        for label in (0, 1)
    ]
    for place, near in zip(np.argwhere(hole)[::97], np.reshape(distances, (-1, 2)), strict=True):
        assert near[found.target[tuple(place)]] <= near.min() + 0.6  # OpenCV's distances are approximate


def test_pasted_labels_are_those_of_the_object():
    """An unlabelled hole in the object moves with it; else nothing is unlabelled."""
    sample = scene()
    sample.target[78:83, 58:63] = IGNORE
    options = {**STILL, "shift": 2.0, "classes": {"a": 1.0}}
    found = build(**options)(sample, np.random.default_rng(1))
    moved = found.instances == 300
    assert (found.target[moved] == IGNORE).sum() == 25 and set(found.target[moved]) == {2, IGNORE}
    assert set(found.target[~moved]) <= {0, 1, 3}
    ignored = build(**options, hole_label="ignore")(sample, np.random.default_rng(1))
    there = (sample.instances == 300) & ~moved
    assert (ignored.target[there] == IGNORE).all()
    assert not (ignored.target[~moved & ~ring(sample, RING_PX + 1) & ~there] == IGNORE).any()


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_the_area_grows_with_the_square_of_the_scale(factor):
    sample = scene()
    op = build(**{**STILL, "scale": [factor, factor]}, classes={"a": 1.0})
    found = op(sample, np.random.default_rng(0))
    area = (sample.target == 2).sum() * factor**2
    assert (found.target == 2).sum() == pytest.approx(area, rel=0.05)
    rows, columns = np.nonzero(found.target == 2)
    assert rows.mean() == pytest.approx(80, abs=0.6) and columns.mean() == pytest.approx(60, abs=0.6)


def test_turned_and_mirrored():
    sample = scene()
    found = build(**{**STILL, "flip": 1.0}, classes={"b": 1.0}, feather=0.0)(sample, np.random.default_rng(0))
    assert np.array_equal(found.target, sample.target)
    assert np.array_equal(found.image[110:130, 120:160], sample.image[110:130, 120:160][:, ::-1])
    boxes = set()
    for seed in range(9):
        op = build(**{**STILL, "rotate": 90.0}, classes={"b": 1.0})
        found = op(sample, np.random.default_rng(seed)).instances == 7
        assert found.sum() == pytest.approx(800, rel=0.05)
        boxes.add((found.any(1).sum(), found.any(0).sum()))
    assert len(boxes) > 4 and max(high for high, _ in boxes) > 35


def test_the_same_generator_gives_the_same_sample():
    op, sample = build(shift=1.0), scene()
    first, second, other = (op(sample, np.random.default_rng(seed)) for seed in (3, 3, 4))
    for name in ("image", "target", "instances"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.image, other.image)


def test_which_objects_move():
    sample = scene()
    op = build(shift=1.0, max_objects=3)
    samples = [op(sample, np.random.default_rng(seed)) for seed in range(9)]
    assert all(
        np.array_equal(found.instances == 9, sample.instances == 9) for found in samples
    )  # at the border
    moved = [
        tuple(not np.array_equal(found.instances == n, sample.instances == n) for n in (300, 7))
        for found in samples
    ]
    assert {(True, True), (True, False), (False, True)} == set(moved)
    op = build(shift=1.0, classes={"b": 0.5})
    found = [op(sample, np.random.default_rng(seed)).target for seed in range(24)]
    assert all(np.array_equal(target == 2, sample.target == 2) for target in found)
    share = np.mean([not np.array_equal(target, sample.target) for target in found])
    assert 0.25 < share < 0.75
    assert build(probability=0.0)(sample, np.random.default_rng(0)) is sample


def test_images_without_objects_are_not_changed():
    empty = scene()
    for nothing in (
        replace(empty, instances=np.zeros_like(empty.instances)),
        replace(empty, target=np.ones_like(empty.target), instances=None),
        replace(empty, target=np.full_like(empty.target, IGNORE)),
        replace(empty, target=None),
    ):
        assert build()(nothing, np.random.default_rng(0)) is nothing
    tiny = scene()
    tiny.instances[:] = 0
    tiny.instances[20:24, 20:24] = 5  # less than 0.1 % of the image
    assert build()(tiny, np.random.default_rng(0)) is tiny


def test_smaller_objects_stay_in_front():
    """A large object that moves over a small one that stays goes behind it."""
    sample = scene()
    sample.instances[sample.instances == 7], sample.target[sample.target == 3] = 0, 0
    sample.target[76:84, 90:98], sample.instances[76:84, 90:98] = 3, 5  # beside the disc, 64 px
    seen = 0
    for seed in range(12):
        found = build(**{**STILL, "shift": 1.0}, classes={"a": 1.0})(sample, np.random.default_rng(seed))
        assert ((found.instances == 5) == (sample.instances == 5)).all()
        seen += int(
            (cv2.dilate((found.instances == 5).astype(np.uint8), np.ones((3, 3)))[found.target == 2]).sum()
            > 20
        )
    assert seen


def test_objects_that_are_hardly_seen_are_no_objects_any_more():
    """A disc that leaves the image but for a few pixels is a thing without a number."""
    sample = scene()
    sample.instances[sample.instances == 7], sample.target[sample.target == 3] = 0, 0
    op = build(**{**STILL, "shift": 2.0})
    visible = [op(sample, np.random.default_rng(seed)) for seed in range(30)]
    visible = [(int((one.target == 2).sum()), int((one.instances == 300).sum())) for one in visible]
    assert all(numbered == (pixels if pixels >= 20 else 0) for pixels, numbered in visible)
    assert any(numbered == 0 for _, numbered in visible) and any(numbered > 1000 for _, numbered in visible)
    instances = np.zeros((9, 30), np.uint16)
    instances[0, :19], instances[2, :20], instances[4, :5], instances[6, :25] = 1, 2, 3, 4
    before = instances.copy()
    before[0], before[2], before[8] = 1, 2, 5
    found = without_hidden(instances, before, instances != before)
    assert np.unique(found).tolist() == [0, 2, 3, 4]  # 3 was as small before


def test_an_image_full_of_objects_has_no_background_to_fill_with():
    sample = scene()
    sample.target[:] = 3
    sample.instances[:] = 9
    sample.target[60:90, 60:90], sample.instances[60:90, 60:90] = 2, 300
    found = build(**{**STILL, "shift": 1.0}, feather=0.0)(sample, np.random.default_rng(0))
    assert set(np.unique(found.target)) == {2, 3, IGNORE}


def test_other_targets_move_along():
    """Measured values, and several values a pixel; only instances are objects then."""
    sample = scene()
    depth = sample.target.astype(np.float32) * 2 + 1
    depth[75:80, 55:60] = np.nan
    several = np.stack([sample.target, 7 - sample.target], axis=2)
    for target, kind in (
        (depth, Target(False, "linear")),
        (np.stack([depth, depth], axis=2), Target(False, "linear")),
        (several, Target(False)),
    ):
        one = replace(sample, target=target)
        found = build(**{**STILL, "shift": 1.0}, max_objects=1, target=kind)(one, np.random.default_rng(3))
        assert found.target.dtype == target.dtype and found.target.shape == target.shape
        for number, label in ((300, 2), (7, 3)):
            values = found.target[found.instances == number]
            expected = label * 2 + 1 if target is not several else [label, 7 - label]
            assert ((values == expected) | np.isnan(values)).all()
        background = found.target[found.instances == 0]
        assert np.isfinite(background).all() and (background <= (3 if target is not several else 7)).all()
        assert build(target=kind)(replace(one, instances=None), np.random.default_rng(0)).target is target


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": [1.2, 0.8]}, r"object_affine\.scale is \[1\.2, 0\.8\]; allowed: the smaller factor first"),
        ({"classes": {"c": 0.5}}, r"object_affine\.classes has 'c'.*allowed: ground, wall, a, b"),
        ({"classes": {"a": 2}}, r"object_affine\.classes\.a is 2"),
        ({"hole_label": "none"}, r"object_affine\.hole_label is 'none'"),
        ({"max_objects": 0}, r"object_affine\.max_objects is 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_classes_of_a_task_without_classes_are_refused():
    with pytest.raises(ConfigError, match=r"object_affine\.classes names classes, and the task has none"):
        build(classes={"a": 1.0}, target=Target(False))
