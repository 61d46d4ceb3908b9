"""Crops around objects, on scenes made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from segtrain.augmentation import AUGMENTATION
from segtrain.augmentation.objects import box_of, large_objects, objects_of
from segtrain.errors import ConfigError
from segtrain.sample import IGNORE, Facts, Sample

FACTS = Facts(classes=("background", "a", "b", "ground"), palette=((0, 0, 0),) * 4, things=(1, 2))
NO_THINGS = replace(FACTS, things=())
NO_BACKGROUND = replace(FACTS, classes=("sky", "a", "b", "ground"))


def scene(instances=True):
    """Two touching squares of class 1 (20 px, numbers 5 and 6), one of class 2 (16 px, number 9), a strip of
    class 3 at the bottom, one unlabelled pixel inside the last square. The image is its mask times 50."""
    target, numbers = np.zeros((120, 160), np.uint8), np.zeros((120, 160), np.uint16)
    target[20:40, 10:50] = 1
    numbers[20:40, 10:30], numbers[20:40, 30:50] = 5, 6
    target[60:76, 100:116], numbers[60:76, 100:116] = 2, 9
    target[110:] = 3
    target[66, 106] = IGNORE
    image = np.repeat(np.where(target == IGNORE, 0, target * 50)[..., None].astype(np.uint8), 3, axis=2)
    return Sample(image, target, numbers if instances else None, "scene")


def build(facts=FACTS, fill=(7, 7, 7), **options):
    (op,) = AUGMENTATION.build_each({"object_crops": options}, facts=facts, fill=fill, ignore_index=IGNORE)
    return op


def crops(sample, op, count=20):
    return [op(sample, np.random.default_rng(seed)) for seed in range(count)]


def test_objects_are_instances_or_connected_parts():
    sample = scene()
    assert objects_of(sample, (1, 2)) is sample.instances
    found = objects_of(scene(instances=False), (1, 2))
    assert sorted(np.unique(found)) == [0, 1, 2]
    assert (found[20:40, 10:50] == 1).all()  # those that touch are one
    assert np.array_equal(found > 0, np.isin(sample.target, (1, 2)))
    every = objects_of(scene(instances=False), (1, 2, 3))
    assert every.max() == 3 and (every[110:] == 3).all()


def test_touching_corners_are_one_part():
    target = np.zeros((6, 6), np.uint8)
    target[1:3, 1:3] = target[3:5, 3:5] = 1
    assert objects_of(Sample(np.zeros((6, 6, 3), np.uint8), target), (1,)).max() == 1


def test_large_objects_have_a_thousandth_of_the_image():
    objects = np.zeros((100, 100), np.int32)
    objects[0, :9], objects[5, :10] = 1, 2
    assert large_objects(objects).tolist() == [2]
    objects[5] = 0
    assert large_objects(objects).tolist() == []
    assert box_of(objects == 1) == (0, 0, 1, 9)


def test_a_tiny_object_is_cropped_only_where_there_is_no_larger_one():
    sample = scene()
    sample.target[5, 150:155], sample.instances[5, 150:155] = 2, 12
    areas = {int((found.target == 2).sum()) for found in crops(sample, build(size=8, resized=8), 40)}
    assert all(area == 0 or area > 20 for area in areas)  # the tiny one would have fewer
    sample.target[6:], sample.instances[6:] = 0, 0
    assert all(0 < (found.target == 2).sum() <= 20 for found in crops(sample, build(size=8, resized=8), 5))


def test_the_whole_square_around_an_object():
    """With size = resized nothing is drawn but the object: 1.2 times its box, here 24 source pixels of 10
    each."""
    op = build(size=240, resized=240, flip=0.0)
    for found in crops(scene(), op):
        label = int(found.target.max(where=found.target != IGNORE, initial=0))
        inside = found.target == label
        if label == 1:
            assert box_of(inside) == (20, 20, 220, 220) and inside.sum() == 200 * 200
            assert (
                found.target[~inside] == 0
            ).all()  # the other square of its class is background, like all else
        else:  # 16 px of 12.5 pixels each; the one without a label is the seventh in both directions
            assert box_of(inside) == (20, 20, 220, 220)
            assert box_of(found.target == IGNORE) == (95, 95, 107, 107)


def test_each_object_is_as_likely():
    found = crops(scene(), build(size=8, resized=8), 150)
    assert 0.55 < np.mean([(f.target == 1).any() for f in found]) < 0.78  # two of three


def test_the_image_stays_aligned_and_untouched():
    """The image still shows the neighbours that the target calls background."""
    for found in crops(scene(), build(size=224, resized=250)):
        hard = found.image[..., 0]
        object_ = (found.target == 1) | (found.target == 2)
        inner = (
            object_[1:-1, 1:-1]
            & object_[:-2, 1:-1]
            & object_[2:, 1:-1]
            & object_[1:-1, :-2]
            & object_[1:-1, 2:]
        )
        away = hard[1:-1, 1:-1][inner]
        assert np.median(away) in (50, 100)
        assert found.instances.shape == found.target.shape == (224, 224)


def test_crops_are_drawn_and_mirrored():
    found = crops(scene(), build(size=200, resized=240), 60)
    boxes = {box_of(np.isin(f.target, (1, 2))) for f in found}
    assert len(boxes) > 15
    for mirrored in (0.0, 1.0):
        op = build(size=240, resized=240, flip=mirrored)
        sides = []
        for one in crops(scene(), op):
            if (one.target == 1).any():  # the left square has its twin on the right, and the other way round
                number = 5 if (one.instances == 5).sum() > (one.instances == 6).sum() else 6
                twin = 6 if number == 5 else 5
                columns = np.flatnonzero((one.instances == twin).any(0))
                sides.append((number == 5) == (columns.mean() > 120))
        assert sides and all(side == (mirrored == 0.0) for side in sides)


def test_background_is_the_class_of_that_name_or_none():
    assert {int(v) for f in crops(scene(), build(size=64, resized=70)) for v in np.unique(f.target)} == {
        0,
        1,
        2,
        IGNORE,
    }
    others = crops(scene(), build(facts=NO_BACKGROUND, size=64, resized=70))
    assert {int(v) for f in others for v in np.unique(f.target)} == {1, 2, IGNORE}
    chosen = crops(scene(), build(background=3, size=64, resized=70))
    assert {int(v) for f in chosen for v in np.unique(f.target)} == {1, 2, 3, IGNORE}
    ignored = crops(scene(), build(background="ignore", size=64, resized=70))
    assert {int(v) for f in ignored for v in np.unique(f.target)} == {1, 2, IGNORE}


def test_without_things_every_class_but_the_background_makes_objects():
    found = crops(scene(instances=False), build(facts=NO_THINGS, size=64, resized=70))
    assert {int(v) for f in found for v in np.unique(f.target)} == {0, 1, 2, 3, IGNORE}
    found = crops(scene(instances=False), build(facts=FACTS, size=64, resized=70))
    assert not any((f.target == 3).any() for f in found)


def test_stage_two_shows_several_objects_with_all_labels():
    op = build(stage=2, size=200, resized=200, flip=0.0)
    seen = crops(scene(), op)
    for found in seen:
        numbers = set(np.unique(found.instances)) - {0}
        assert {5, 6} <= numbers or {6, 9} <= numbers
        label = {5: 1, 6: 1, 9: 2}
        for number in numbers:
            inside = found.instances == number
            assert set(np.unique(found.target[inside])) <= {label[number], IGNORE}
    pair = [f for f in seen if not (f.instances == 9).any()]
    # 5 and 6 alone: 40 × 20 px in a square of 48, 200 px wide; the rest keeps its labels.
    assert pair and box_of(pair[0].target == 1) == (58, 17, 142, 183)
    assert any((f.target == 3).any() or len(set(np.unique(f.instances))) == 4 for f in seen)


def test_nothing_to_look_at_gives_the_whole_image():
    empty = replace(scene(), instances=np.zeros((120, 160), np.uint16))
    for stage, expected in ((1, {0, IGNORE}), (2, {0, 1, 2, 3, IGNORE})):
        found = build(stage=stage, size=160, resized=160, flip=0.0)(empty, np.random.default_rng(0))
        assert set(np.unique(found.target).tolist()) == expected
        assert (found.target[:20] == IGNORE).all() and (
            found.image[:20] == 7
        ).all()  # the square is higher than the image
        if stage == 2:
            assert np.array_equal(found.target[20:140], empty.target)
    unknown = build(size=32, resized=40)(replace(scene(), target=None), np.random.default_rng(0))
    assert unknown.target is None and unknown.image.shape == (32, 32, 3)


def test_the_sample_is_left_as_it_is():
    sample, untouched = scene(), scene()
    crops(sample, build(), 5)
    assert np.array_equal(sample.target, untouched.target) and np.array_equal(sample.image, untouched.image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 300}, r"object_crops\.size is 300 and .*resized 250"),
        ({"flip": 1.5}, r"object_crops\.flip is 1\.5"),
        ({"background": 4}, r"object_crops\.background is 4"),
        ({"background": "none"}, r"object_crops\.background is 'none'"),
        ({"stage": 3}, r"object_crops\.stage is 3"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_object_is_of_the_class_that_the_image_was_drawn_for(stage):
    target = np.zeros((90, 90), np.uint8)
    target[5:45, 5:45] = 1
    target[70:72, 70:72] = 2  # too small to be chosen otherwise
    sample = Sample(np.zeros((90, 90, 3), np.uint8), target, focus=2)
    facts = Facts(classes=("background", "large", "small"), palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    op = build(facts=facts, fill=(0, 0, 0), stage=stage, size=40, resized=44)
    assert all((crop.target == 2).any() for crop in crops(sample, op))
    sample.focus = None
    assert not any(
        (crop.target == 2).any() for crop in crops(sample, build(facts=facts, fill=(0, 0, 0), size=40))
    )
