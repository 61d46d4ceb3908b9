"""Regions and what describes them, by hand and against scikit-image."""

import numpy as np
import pytest

color = pytest.importorskip("skimage.color")

from scipy.ndimage import label

from segtrain.data.shapes import shapes
from segtrain.model.classical.regions import around, boundary_map, histograms, neighbours, regions_of, sums

SMALL = np.array([[0, 0, 1], [0, 2, 1], [3, 2, 2]])


def picture(index: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rgb = shapes(size=64).splits["train"][index].image.astype(np.float32) / 255
    return rgb, color.rgb2lab(rgb).astype(np.float32)


@pytest.mark.parametrize("how", ["slic", "watershed"])
def test_regions_are_connected_numbered_without_gaps_and_about_as_many_as_wanted(how):
    regions = regions_of(*picture(), how, 60, 10.0)
    assert regions.shape == (64, 64) and np.array_equal(np.unique(regions), np.arange(regions.max() + 1))
    assert 30 <= regions.max() + 1 <= 90
    assert all(label(regions == number)[1] == 1 for number in range(regions.max() + 1))


@pytest.mark.parametrize("how", ["slic", "watershed"])
def test_regions_end_where_the_colour_changes(how):
    rgb = np.full((40, 40, 3), 0.2, np.float32)
    rgb[:, 17:] = (0.9, 0.1, 0.1)
    lab = color.rgb2lab(rgb).astype(np.float32)
    regions = regions_of(rgb, lab, how, 16, 10.0)
    assert not set(regions[:, :16].ravel().tolist()) & set(regions[:, 18:].ravel().tolist())
    assert boundary_map(lab).argmax(1).tolist() in ([16] * 40, [17] * 40)


def test_one_colour_and_a_tiny_image_have_regions_too():
    for side in (1, 3, 40):
        flat = np.full((side, side, 3), 0.5, np.float32)
        for how in ("slic", "watershed"):
            regions = regions_of(flat, color.rgb2lab(flat), how, 400, 10.0)
            assert regions.shape == (side, side) and regions.min() == 0


def test_neighbours_by_hand():
    assert neighbours(SMALL).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [2, 3]]
    assert neighbours(np.zeros((4, 4), np.int64)).shape == (0, 2)


def test_sums_and_histograms_by_hand():
    values = np.arange(9.0).reshape(3, 3)
    assert sums(SMALL, np.stack([values, values**0], -1)).tolist() == [
        [0 + 1 + 3, 3],
        [2 + 5, 2],
        [4 + 7 + 8, 3],
        [6, 1],
    ]
    words = np.array([[0, 1, 1], [1, 0, 0], [1, 1, 1]])
    assert histograms(SMALL, words, 2).tolist() == [[1, 2], [1, 1], [1, 2], [0, 1]]


def test_around_is_the_mean_of_the_neighbours_by_their_area():
    values, area = np.array([[1.0], [10.0], [100.0], [1000.0]]), np.array([3.0, 2.0, 3.0, 1.0])
    found = around(values, area, neighbours(SMALL))
    assert found[0, 0] == pytest.approx((2 * 10 + 3 * 100 + 1000) / 6) and found[1, 0] == pytest.approx(
        (3 * 1 + 3 * 100) / 6
    )
    assert around(values[:1], area[:1], np.zeros((0, 2), np.int64)).tolist() == [[1.0]]
