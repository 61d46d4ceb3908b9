"""Every operation takes images of any number of channels, of 8 and 16 bit and float, and the targets of any
task, or says by its name that it does not."""

from dataclasses import replace

import numpy as np
import pytest

from segtrain.augmentation import AUGMENTATION, apply
from segtrain.errors import ConfigError
from segtrain.sample import CLASSES, IGNORE, Facts, Sample, Target

FACTS = Facts(("background", "a", "b", "c"), ((0, 0, 0),) * 4, things=(2, 3))
ALWAYS = {"probability": 1.0}
OPTIONS = {
    "classmix": ALWAYS,
    "copy_paste": ALWAYS,
    "cutmix": ALWAYS,
    "elastic": {"deviation": 4.0},
    "object_affine": {**ALWAYS, "shift": 0.5},
    "object_crops": {"size": 64, "resized": 72},
    "patch": {"size": 65},
    "pixel": {"transforms": {"GaussNoise": {"p": 1.0}, "ElasticTransform": {"p": 1.0}, "D4": {"p": 1.0}}},
    "warp": {"rotate": 20.0},
}
KINDS = [(dtype, k) for dtype in (np.uint8, np.uint16, np.float32) for k in (1, 2, 3, 6)]
STEP = {"uint8": 60, "uint16": 15000, "float32": 0.2}


def build(name, channels=3, target=CLASSES):
    facts = replace(FACTS, channels=channels)
    config = {name: OPTIONS.get(name, {})}
    (op,) = AUGMENTATION.build_each(
        config, facts=facts, ignore_index=IGNORE, fill=(0,) * channels, target=target
    )
    return op


def sample(dtype, channels, number):
    """Squares of classes 2 and 3 on ground of 0 and 1; every channel is the target times STEP."""
    target, instances = np.zeros((96, 120), np.uint8), np.zeros((96, 120), np.uint16)
    target[48:] = 1
    for index, (top, left) in enumerate(((10, 12 + 9 * number), (40, 70), (60, 20 + 5 * number)), 1):
        place = np.s_[top : top + 22, left : left + 22]
        target[place], instances[place] = 2 + index % 2, index * 100
    image = np.repeat(target[..., None], channels, axis=2) * np.array(STEP[np.dtype(dtype).name], dtype)
    return frozen(Sample(image.astype(dtype), target, instances, "x"))


def frozen(one):
    """The sample with read-only arrays, as those of a cache are."""
    for array in (one.image, one.target, one.instances):
        array.flags.writeable = False
    return one


def applied(op, one, other, seed=0):
    return apply([op], one, np.random.default_rng(seed), lambda rng: other)


def test_all_of_the_table_are_tried():
    assert set(OPTIONS) <= set(AUGMENTATION.names())


@pytest.mark.parametrize("name", AUGMENTATION.names())
def test_images_of_any_kind(name):
    for dtype, channels in KINDS:
        op = build(name, channels)
        one, other = (sample(dtype, channels, number) for number in (0, 1))
        changed = False
        for seed in range(3):
            found = applied(op, one, other, seed)
            assert found.image.dtype == dtype and found.image.shape[2] == channels
            assert found.target.dtype == np.uint8 and found.instances.dtype == np.uint16
            assert found.image.shape[:2] == found.target.shape == found.instances.shape
            assert np.isfinite(found.image).all() and found.image.max() <= one.image.max() * (
                1.5 if channels == 3 else 1.01
            )
            changed |= not np.array_equal(found.target, one.target)
            if dtype != np.uint8 or channels != 3:
                # No other light, so that the image shows where the labels must be; except for object_crops,
                # whose labels are of one object.
                expected = found.target * np.array(STEP[np.dtype(dtype).name])
                near = np.abs(found.image - expected[..., None]).max(2) < STEP[np.dtype(dtype).name] / 2
                labelled = found.target != IGNORE
                labelled &= name != "object_crops" or found.target > 1
                assert near[labelled].mean() > 0.9, (dtype, channels)
        assert changed or name in ("colour",)


TARGETS = {
    "measured": (Target(False, "linear"), lambda t: np.where(t == 3, np.nan, t).astype(np.float32)),
    "several measured": (Target(False, "linear"), lambda t: np.stack([t, t + 10.0], 2).astype(np.float32)),
    "several": (Target(False), lambda t: np.stack([t, 3 - t], axis=2)),
}
BY_CLASS = ("classmix", "object_crops")


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", AUGMENTATION.names())
def test_targets_of_any_task(name, kind):
    task, form = TARGETS[kind]
    if name in BY_CLASS:
        with pytest.raises(ConfigError, match=rf"augmentation\.{name}"):
            build(name, target=task)
        return
    op = build(name, target=task)
    stored = (sample(np.uint8, 3, number) for number in (0, 1))
    one, other = (frozen(replace(s, target=form(s.target))) for s in stored)
    values = set(np.unique(np.append(one.target, other.target))) | {IGNORE if kind == "several" else np.nan}
    for seed in range(3):
        found = applied(op, one, other, seed)
        assert found.target.dtype == one.target.dtype and found.target.ndim == one.target.ndim
        assert found.target.shape[:2] == found.image.shape[:2]
        got = np.unique(found.target)
        if kind == "several":
            assert set(got) <= values
        else:
            assert np.nanmin(got) >= 0 and np.nanmax(got) <= 13.0
        if found.target.ndim == 3 and kind != "several":
            known = np.isfinite(found.target).all(2)
            assert np.allclose(found.target[known][:, 1] - found.target[known][:, 0], 10, atol=1e-3)
            assert np.array_equal(np.isnan(found.target[..., 0]), np.isnan(found.target[..., 1]))
