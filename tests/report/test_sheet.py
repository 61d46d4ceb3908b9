"""Pictures of predictions."""

import numpy as np
import pytest

from segtrain.report.sheet import overlay


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_overlay_is_the_mean_of_both_pictures(strength):
    rng = np.random.default_rng(0)
    image, colours = (rng.integers(0, 256, (31, 40, 3), dtype=np.uint8) for _ in range(2))
    expected = (image * (1 - strength) + colours * strength).round()
    assert overlay(image, colours, strength).dtype == np.uint8
    assert np.array_equal(overlay(image, colours, strength), expected)
    assert np.array_equal(
        overlay(image[:, ::-1], colours, strength)[:, 0],
        (image[:, -1] * (1 - strength) + colours[:, 0] * strength).round(),
    )
