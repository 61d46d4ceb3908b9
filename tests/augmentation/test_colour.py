"""The colour matrix against torchvision's single operations and by hand."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from segtrain.augmentation import AUGMENTATION
from segtrain.augmentation.colour import LUMA, colour_matrix
from segtrain.errors import ConfigError
from segtrain.sample import Sample


def image(low=60, high=190, seed=0):
    return np.random.default_rng(seed).integers(low, high, (32, 40, 3), dtype=np.uint8)


def applied(matrix, pixels):
    return np.clip(np.round(pixels @ matrix[:, :3].T + matrix[:, 3]), 0, 255)


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_each_factor_is_torchvisions(kind, factor):
    pixels = image()
    grey = float(LUMA @ pixels.reshape(-1, 3).mean(0))
    factors = {name: factor if name == kind else 1.0 for name in ("brightness", "contrast", "saturation")}
    found = applied(colour_matrix(**factors, hue=0.0, mean_grey=grey), pixels)
    reference = getattr(tv, f"adjust_{kind}")(torch.from_numpy(pixels.transpose(2, 0, 1).copy()), factor)
    assert np.abs(found - reference.numpy().transpose(1, 2, 0)).max() <= 1


def test_all_factors_are_applied_one_after_the_other():
    pixels = image(100, 150)
    grey = float(LUMA @ pixels.reshape(-1, 3).mean(0))
    found = applied(colour_matrix(1.1, 0.8, 1.2, 0.0, grey), pixels)
    step = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    for kind, factor in (("brightness", 1.1), ("contrast", 0.8), ("saturation", 1.2)):
        step = getattr(tv, f"adjust_{kind}")(step, factor)
    assert np.abs(found - step.numpy().transpose(1, 2, 0)).max() <= 3  # torchvision rounds after each


def test_hue_turns_about_grey():
    """120 degrees send red to green, green to blue and blue to red; grey stays."""
    matrix = colour_matrix(1.0, 1.0, 1.0, 120.0, 128.0)
    assert np.allclose(matrix[:, :3] @ np.eye(3), np.roll(np.eye(3), 1, axis=0)) and np.allclose(
        matrix[:, 3], 0
    )
    assert np.allclose(colour_matrix(1.0, 1.0, 1.0, 17.0, 128.0)[:, :3] @ [5, 5, 5], 5)


def test_the_operation_clips_and_keeps_the_rest():
    (op,) = AUGMENTATION.build_each(
        {"colour": {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 180.0}}
    )
    target = np.zeros((32, 40), np.uint8)
    before = image(0, 256)
    seen = []
    for seed in range(20):
        found = op(Sample(before, target), np.random.default_rng(seed))
        assert found.image.dtype == np.uint8 and found.image.shape == before.shape and found.target is target
        seen.append(found.image.mean())
    assert np.std(seen) > 5


def test_zero_ranges_and_probability_change_nothing():
    for options in ({"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}, {"probability": 0.0}):
        (op,) = AUGMENTATION.build_each({"colour": options})
        assert np.array_equal(op(Sample(image()), np.random.default_rng(0)).image, image())


def test_probability_is_a_share():
    (op,) = AUGMENTATION.build_each({"colour": {"probability": 0.3}})
    sample = Sample(image())
    changed = sum(op(sample, np.random.default_rng(seed)).image is not sample.image for seed in range(400))
    assert 90 < changed < 150


@pytest.mark.parametrize(
    "array",
    [image().astype(np.uint16), image().astype(np.float32), image()[..., :1], np.zeros((4, 4, 5), np.uint8)],
)
def test_other_images_pass_unchanged(array):
    (op,) = AUGMENTATION.build_each({"colour": {}})
    assert op(Sample(array), np.random.default_rng(0)).image is array


def test_options_out_of_range():
    with pytest.raises(ConfigError, match=r"augmentation\.colour\.hue is 200\.0; allowed: from 0 to 180"):
        AUGMENTATION.build_each({"colour": {"hue": 200.0}})
