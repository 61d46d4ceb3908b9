"""Albumentations by name: independent draws, masks that stay labels, clear refusals."""

import importlib.metadata
import subprocess
import sys

import numpy as np
import pytest

from segtrain.augmentation import AUGMENTATION
from segtrain.augmentation.pixel import ALLOWED, ON_IMAGES, _albumentations
from segtrain.errors import ConfigError
from segtrain.sample import IGNORE, Sample


def sample(side=48):
    rng = np.random.default_rng(0)
    target = np.kron(rng.integers(1, 4, (side // 8, side // 8)), np.ones((8, 8))).astype(np.uint8)
    return Sample(
        rng.integers(0, 256, (side, side, 3), dtype=np.uint8), target, target.astype(np.uint16) * 300, "a"
    )


def build(**transforms):
    (op,) = AUGMENTATION.build_each({"pixel": {"transforms": transforms}})
    return op


def test_three_at_a_half_fire_independently():
    op = build(InvertImg={"p": 0.5}, HorizontalFlip={"p": 0.5}, VerticalFlip={"p": 0.5})
    image = np.zeros((4, 4, 3), np.uint8)
    image[0, 0] = 255
    fired = []
    for seed in range(300):
        out = op(Sample(image, np.zeros((4, 4), np.uint8)), np.random.default_rng(seed)).image[..., 0]
        inverted = np.median(out) == 255
        row, column = np.argwhere(out == (0 if inverted else 255))[0]
        fired.append((inverted, column == 3, row == 3))
    counts = np.unique(np.array(fired) @ [1, 2, 4], return_counts=True)[1]
    assert len(counts) == 8 and counts.min() > 15  # 37.5 each


def test_the_same_generator_gives_the_same_sample_and_global_ones_are_not_touched():
    op = build(GaussNoise={"p": 1.0}, RandomFog={"p": 0.5}, ElasticTransform={"p": 1.0})
    np.random.seed(1)
    first = op(sample(), np.random.default_rng(5))
    np.random.seed(2)
    second, other = op(sample(), np.random.default_rng(5)), op(sample(), np.random.default_rng(6))
    assert np.array_equal(first.image, second.image) and np.array_equal(first.target, second.target)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("name", ALLOWED)
def test_every_allowed_transform_keeps_the_contract(name):
    op = build(**{name: {"p": 1.0}})
    before = sample()
    kept = before.image.copy(), before.target.copy()
    found = op(before, np.random.default_rng(3))
    assert found.image.dtype == np.uint8 and found.image.shape == (48, 48, 3)
    assert found.target.dtype == np.uint8 and found.instances.dtype == np.uint16
    assert set(np.unique(found.target).tolist()) <= {1, 2, 3, IGNORE}
    assert set(np.unique(found.instances).tolist()) <= {0, 300, 600, 900}
    labelled = found.target != IGNORE
    assert np.array_equal(found.instances[labelled], found.target[labelled].astype(np.uint16) * 300)
    if name in ON_IMAGES:
        assert np.array_equal(found.target, before.target)
    assert np.array_equal(before.image, kept[0]) and np.array_equal(before.target, kept[1])


@pytest.mark.parametrize(
    ("name", "options"),
    [("GridDistortion", {}), ("OpticalDistortion", {}), ("ThinPlateSpline", {"scale_range": [0.3, 0.4]})],
)
@pytest.mark.parametrize("num_labels", [2, 5])
def test_pixels_from_outside_the_image_are_unlabelled_in_every_channel(name, options, num_labels):
    op = build(**{name: {"p": 1.0, **options}})
    target = np.stack([(sample().target + n) % 2 for n in range(num_labels)], axis=2)  # H×W×T
    found = [op(Sample(sample().image, target), np.random.default_rng(seed)).target for seed in range(4)]
    unknown = np.stack(found) == IGNORE
    assert unknown.any() and (unknown == unknown[..., :1]).all()


def test_other_images_pass_unchanged():
    op = build(GaussNoise={"p": 1.0})
    image = np.zeros((8, 8, 4), np.uint8)
    assert op(Sample(image), np.random.default_rng(0)).image is image


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ({"GausNoise": {}}, r"has 'GausNoise' \(did you mean 'GaussNoise'\?\); allowed: "),
        ({"Lambda": {}}, "has 'Lambda'"),
        (
            {"GaussNoise": {"sigma": 3}},
            r"augmentation\.pixel\.transforms\.GaussNoise\.sigma is not an option of GaussNoise",
        ),
        ({"ElasticTransform": {"mask_interpolation": 1}}, "mask_interpolation is not an option"),
        ({"GaussianBlur": {"blur_limit": "x"}}, r"GaussianBlur is .* which GaussianBlur refuses"),
    ],
)
def test_wrong_options_are_refused(transforms, message):
    with pytest.raises(ConfigError, match=message):
        build(**transforms)


def test_the_other_package_of_that_import_name_is_refused(monkeypatch):
    real = importlib.metadata.distribution
    monkeypatch.setattr(
        importlib.metadata, "distribution", lambda name: object() if name == "albumentationsx" else real(name)
    )
    with pytest.raises(ConfigError, match=r"albumentationsx .*pip uninstall albumentationsx"):
        _albumentations()


def test_the_library_is_imported_only_when_it_is_used():
    code = "import sys, segtrain.augmentation; sys.exit('albumentations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
