"""Two samples made one: copy_paste, classmix, cutmix."""

from dataclasses import replace

import numpy as np
import pytest

from segtrain.augmentation import AUGMENTATION
from segtrain.augmentation.mixing import blended, mixed
from segtrain.augmentation.objects import box_of
from segtrain.errors import ConfigError
from segtrain.sample import CLASSES, IGNORE, Facts, Sample, Target

FACTS = Facts(("ground", "wall", "a", "b", "sky"), ((0, 0, 0),) * 5, things=(2, 3))
KEPT = {"probability": 1.0, "scale": [1.0, 1.0], "flip": 0.0}
NAMES = ("copy_paste", "classmix", "cutmix")


def below():
    """Ground and wall with an object of class 2 (number 60000); the image is its target times ten."""
    target, numbers = np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint16)
    target[:30] = 1
    target[40:50, 40:60], numbers[40:50, 40:60] = 2, 60000
    return Sample(np.repeat(target[..., None] * 10, 3, 2), target, numbers, "below")


def above():
    """Sky, an unlabelled row, and three objects: class 2 (number 7) and two of class 3 (8, 65535); the image
    is the target times ten, and 100."""
    target, numbers = np.full((60, 80), 4, np.uint8), np.zeros((60, 80), np.uint16)
    target[0] = IGNORE
    for number, label, place in (
        (7, 2, np.s_[5:20, 5:20]),
        (8, 3, np.s_[10:20, 40:60]),
        (65535, 3, np.s_[38:52, 38:62]),
    ):
        target[place], numbers[place] = label, number
    return Sample(np.repeat(np.minimum(target, 9)[..., None] * 10 + 100, 3, 2), target, numbers, "above")


def build(name, facts=FACTS, target=CLASSES, **options):
    (op,) = AUGMENTATION.build_each(
        {name: {**KEPT, **options}}, facts=facts, ignore_index=IGNORE, target=target, fill=(0, 0, 0)
    )
    return op


def results(op, sample=None, other=None, count=12):
    sample, other = sample or below(), other or above()
    return [op(sample, np.random.default_rng(seed), lambda rng: other) for seed in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_every_pixel_is_one_of_the_two(name):
    sample, other = below(), above()
    seen = 0
    for found in results(build(name)):
        pasted = found.image[..., 0] >= 100
        seen += pasted.any()
        for part in ("image", "target"):
            assert np.array_equal(getattr(found, part)[pasted], getattr(other, part)[pasted])
            assert np.array_equal(getattr(found, part)[~pasted], getattr(sample, part)[~pasted])
        # Objects stay apart, and pasted ones get numbers of their own.
        assert found.instances.dtype == np.uint16 and not found.instances[found.target == 1].any()
        pairs = {
            (int(new), int(old))
            for new, old in zip(found.instances[pasted], other.instances[pasted], strict=True)
        }
        numbered = {new for new, old in pairs if old}
        assert len(numbered - {0}) == len({old for new, old in pairs if new})
        assert not numbered & set(np.unique(found.instances[~pasted])) - {0}
    assert seen > 8
    assert np.array_equal(sample.target, below().target) and np.array_equal(other.image, above().image)


def test_whole_objects_are_pasted():
    other, chosen = above(), set()
    for found in results(build("copy_paste"), count=30):
        pasted = found.image[..., 0] >= 100
        numbers = set(np.unique(other.instances[pasted])) - {0}
        assert numbers and np.array_equal(pasted, np.isin(other.instances, list(numbers)))
        chosen.add(frozenset(numbers))
        # The object below is hidden wherever the one above it is pasted.
        assert (found.target[40:50, 40:60] == (3 if 65535 in numbers else 2)).all()
        assert (60000 in found.instances) == (65535 not in numbers)
    assert len(chosen) > 4
    for found in results(build("copy_paste", classes=["a"])):
        assert (found.image[5:20, 5:20] == 120).all() and (found.image >= 100)[..., 0].sum() == 15 * 15


def test_without_instances_connected_parts_are_objects():
    found = results(
        build("copy_paste"), replace(below(), instances=None), replace(above(), instances=None), 30
    )
    assert all(one.instances is None for one in found)
    sizes = {int((one.image[..., 0] >= 100).sum()) for one in found}
    assert sizes == {225, 200, 336, 425, 561, 536, 761}


def test_void_objects_are_not_pasted_and_none_is_no_change():
    other = above()
    other.target[other.target != 4] = IGNORE
    sample = below()
    assert all(found is sample for found in results(build("copy_paste"), sample, other))
    other.target[:] = IGNORE
    assert all(found is sample for found in results(build("classmix"), sample, other))
    other = replace(other, instances=np.zeros_like(other.instances))
    assert all(found is sample for found in results(build("copy_paste"), sample, other))
    for name in NAMES:
        assert all(found is sample for found in results(build(name, probability=0.0), sample))


def test_half_of_the_classes_are_pasted():
    other, chosen = above(), set()
    for found in results(build("classmix"), count=20):
        classes = np.unique(other.target[found.image[..., 0] >= 100])
        assert len(classes) == 1 and classes[0] in (2, 3, 4)  # of three
        assert np.array_equal(found.image[..., 0] >= 100, other.target == classes[0])
        chosen.add(int(classes[0]))
    assert chosen == {2, 3, 4}


def test_the_rectangle():
    boxes = set()
    for found in results(build("cutmix"), count=40):
        pasted = found.image[..., 0] >= 100
        top, left, bottom, right = box_of(pasted)
        assert pasted[top:bottom, left:right].all() and pasted.mean() == pytest.approx(0.5, rel=0.05)
        boxes.add((top, left, bottom, right))
    assert len(boxes) > 30
    shares = [
        (found.image[..., 0] >= 100).mean() for found in results(build("cutmix", share=[0.1, 0.9]), count=40)
    ]
    assert min(shares) < 0.25 and max(shares) > 0.75


def test_the_other_sample_is_placed_at_the_size_of_this_one():
    """A smaller and a larger one; where the smaller one does not reach, nothing changes."""
    small = above()
    small = replace(small, image=small.image[:30], target=small.target[:30], instances=small.instances[:30])
    for name in NAMES:
        for found in results(build(name, flip=0.5), other=small):
            assert found.image.shape == (60, 80, 3) and found.target.shape == found.instances.shape == (
                60,
                80,
            )
            assert (found.target != IGNORE).sum() >= 60 * 80 - 80 and (found.image > 0).any()
            assert (found.image[found.target == 1] == 10).all()
        large = replace(small, image=np.full((200, 210, 3), 130, np.uint8), instances=None)
        large.target = np.full((200, 210), 3, np.uint8)
        for found in results(build(name, scale=[0.5, 2.0]), replace(below(), instances=None), large, 4):
            assert ((found.image[..., 0] == 130) == (found.target == 3)).all()


def test_places_and_sizes_are_drawn():
    sizes, boxes = set(), set()
    for found in results(build("copy_paste", scale=[0.5, 2.0], flip=0.5, classes=["a"]), count=30):
        if (found.image[..., 0] == 120).any():
            top, left, bottom, _ = box_of(found.image[..., 0] == 120)
            sizes.add(bottom - top)
            boxes.add((top, left))
    assert min(sizes) < 11 and max(sizes) > 16 and len(boxes) > 10


def test_a_soft_edge_is_of_the_colours_only():
    hard, soft = (results(build("copy_paste", feather=f, classes=["a"]), count=1)[0] for f in (0.0, 1.0))
    assert np.array_equal(hard.target, soft.target) and np.array_equal(hard.instances, soft.instances)
    changed = (hard.image != soft.image).any(2)
    assert changed.any() and not changed[8:17, 8:17].any() and not changed[25:].any()
    line = soft.image[12, 15:26, 0].astype(int)  # from 120 to 10
    assert (np.diff(line) <= 0).all() and 30 < line[5] < 100 and line[0] == 120 and line[-1] == 10


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_blending(dtype):
    rng = np.random.default_rng(0)
    first, second = ((rng.random((20, 20, 5)) * 250).astype(dtype) for _ in range(2))
    alpha = rng.random((20, 20)).astype(np.float32)
    alpha[:5], alpha[5:10] = 0, 1
    found = blended(first, second, alpha, 0.0)
    assert found.dtype == dtype
    assert np.array_equal(found[:5], first[:5]) and np.array_equal(found[5:10], second[5:10])
    expected = alpha[..., None] * second.astype(float) + (1 - alpha[..., None]) * first.astype(float)
    assert np.abs(found - expected).max() <= (0.51 if dtype != np.float32 else 1e-3)
    none = blended(first, second, np.ones((20, 20)), 2.0, np.zeros((20, 20), bool))
    assert np.array_equal(none, first)


def test_numbers_of_objects_do_not_run_out():
    sample, other = below(), above()
    sample.instances[sample.instances > 0] = 65535
    found = mixed(sample, other, other.instances > 0)
    assert sorted(np.unique(found.instances)) == [0, 2, 3, 4]  # 1 is hidden
    only = mixed(replace(sample, instances=None), other, other.instances > 0)
    assert only.instances is None
    bare = mixed(below(), replace(other, instances=None), other.instances == 7)
    assert np.unique(bare.instances).tolist() == [0, 60000]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_generator_gives_the_same_sample(name):
    op, options = build(name, scale=[0.5, 2.0], flip=0.5), (below(), above(), 3)
    for first, second in zip(results(op, *options), results(op, *options), strict=True):
        assert np.array_equal(first.image, second.image) and np.array_equal(first.target, second.target)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *((name, {"scale": [2.0, 1.0]}, rf"{name}\.scale is \[2\.0, 1\.0\]") for name in NAMES),
        ("copy_paste", {"classes": ["wal"]}, r"copy_paste\.classes has 'wal' \(did you mean 'wall'"),
        ("cutmix", {"share": [0.5, 0.2]}, r"cutmix\.share is \[0\.5, 0\.2\]; allowed: the smaller share"),
        ("classmix", {"target": Target(False)}, r"classmix mixes classes, and the task has none"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build(name, **options)
