"""Windows round a pixel."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from segtrain.augmentation import AUGMENTATION
from segtrain.augmentation.patch import patch
from segtrain.errors import ConfigError
from segtrain.sample import IGNORE, Sample


def sample(height=30, width=40) -> Sample:
    """Its image tells the place of each pixel; class 2 is one pixel in a corner, 1 a few, 0 the rest but for
    an unlabelled stripe."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    target = np.zeros((height, width), np.uint8)
    target[10:13, 20:24] = 1
    target[0, 0] = 2
    target[15:] = IGNORE
    return Sample(np.stack([y, x, target], -1), target, 100 + target.astype(np.uint16))


@pytest.mark.parametrize("size", [1, 8, 33, 65])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_window_is_that_of_the_reflected_image(size, flip):
    source, op = sample(), patch(size=size, flip=flip)
    around = np.pad(source.image, [(70, 70), (70, 70), (0, 0)], mode="reflect")
    for seed in range(20):
        found = op(source, np.random.default_rng(seed))
        assert found.image.shape == (size, size, 3) and found.target.shape == found.instances.shape == (
            size,
            size,
        )
        row, column, label = found.image[size // 2, size // 2].tolist()
        assert label != IGNORE and found.target[size // 2, size // 2] == label == source.target[row, column]
        window = around[row + 70 - size // 2 :, column + 70 - size // 2 :][:size, :size]
        if flip and size % 2:
            window = window[:, ::-1]
        elif flip:  # mirrored about the centre pixel, which is not in the middle
            window = around[row + 70 - size // 2 :, column + 71 - size // 2 :][:size, :size][:, ::-1]
        assert np.array_equal(found.image, window)
        assert np.array_equal(found.target, found.image[..., 2]) and np.array_equal(
            found.instances, 100 + found.target.astype(np.uint16)
        )


def test_rare_classes_are_centres_as_often_as_frequent_ones():
    source, op = sample(), patch(size=5)
    counts = Counter(int(op(source, np.random.default_rng(seed)).target[2, 2]) for seed in range(600))
    assert set(counts) == {0, 1, 2} and all(150 < count < 250 for count in counts.values())


def test_classes_can_be_drawn_by_the_root_of_their_frequency():
    frequency = SimpleNamespace(pixels=np.array([100, 100, 10_000]))
    op = patch(size=5, class_draw="sqrt_inverse", class_frequency=lambda: frequency)
    counts = Counter(int(op(sample(), np.random.default_rng(seed)).target[2, 2]) for seed in range(600))
    assert counts[2] == pytest.approx(600 / 21, abs=20) and counts[0] == pytest.approx(counts[1], rel=0.25)


def test_an_image_without_labels_still_gives_a_window():
    bare = sample()
    bare.target[:] = IGNORE
    assert patch(size=9)(bare, np.random.default_rng(0)).image.shape == (9, 9, 3)
    bare.target = bare.instances = None
    found = patch(size=9)(bare, np.random.default_rng(0))
    assert found.image.shape == (9, 9, 3) and found.target is None and found.instances is None


@pytest.mark.parametrize(
    ("options", "words"), [({"size": 0}, "patch.size is 0"), ({"flip": 1.5}, "patch.flip is 1.5")]
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        AUGMENTATION.build_each({"patch": options}, ignore_index=IGNORE)


def test_the_centre_is_of_the_class_that_the_image_was_drawn_for():
    scene = sample()
    scene.target[:] = 0
    scene.target[3, 5] = 1
    scene.focus = 1
    (op,) = AUGMENTATION.build_each({"patch": {"size": 9}}, ignore_index=IGNORE)
    for seed in range(20):
        assert op(scene, np.random.default_rng(seed)).target[4, 4] == 1
