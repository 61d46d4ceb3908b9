"""Holes filled with the background around them."""

import numpy as np
import pytest

from segtrain.augmentation import holes


def ramp(dtype, size=(120, 200), channels=3):
    """A ramp from left to right, a tenth of the type's range high."""
    high = {"uint8": 255, "uint16": 65535, "float32": 1.0}[np.dtype(dtype).name]
    line = np.linspace(0.4, 0.5, size[1]) * high
    return np.broadcast_to(line[None, :, None], (*size, channels)).astype(dtype), high


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("radius", "channels"), [(12, 3), (12, 5), (55, 1)])
def test_a_hole_in_a_ramp_is_like_the_ramp(dtype, radius, channels):
    """Also where it is so large that it is filled at a lower resolution."""
    image, high = ramp(dtype, channels=channels)
    y, x = np.mgrid[:120, :200]
    hole = (y - 60) ** 2 + (x - 100) ** 2 <= radius**2
    near = (np.abs(y - 60) < 58) & (np.abs(x - 100) < 70)  # the rest is another object
    damaged = np.where(hole[..., None], high, np.where(near[..., None], image, 0)).astype(dtype)
    found = damaged.copy()
    holes.fill(found, hole, near & ~hole)
    assert np.array_equal(found[~hole], damaged[~hole])
    error = np.abs(found[hole].astype(float) - image[hole])
    assert error.max() <= 0.05 * high and error.mean() < 0.02 * high


def test_where_there_is_no_background_all_around_is_looked_at():
    image, _ = ramp(np.uint8)
    hole = np.zeros((120, 200), bool)
    hole[50:60, 90:100] = True
    found = np.where(hole[..., None], 0, image)
    holes.fill(found, hole, np.zeros_like(hole))
    assert np.abs(found.astype(int) - image).max() < 8
    assert holes.labels_of(np.ones((120, 200), np.uint8), hole, np.zeros_like(hole)) is None
    everything = image.copy()
    holes.fill(everything, np.ones_like(hole), np.zeros_like(hole))
    assert np.array_equal(everything, image)


def test_the_window_grows_until_it_holds_background():
    source = np.zeros((300, 300), bool)
    assert holes.window_of((100, 100, 110, 110), source)[0].start == 0
    source[100, 60] = True
    rows, columns = holes.window_of((100, 100, 110, 110), source)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (36, 174, 36, 174)
    source[100, 90] = True
    assert holes.window_of((100, 100, 110, 110), source) == (slice(84, 126), slice(84, 126))
