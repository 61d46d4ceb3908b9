"""Filters, textons and binary patterns, against their definitions."""

import numpy as np
import pytest

pytest.importorskip("skimage")
cluster = pytest.importorskip("sklearn.cluster")

from segtrain.model.classical import texture
from segtrain.model.classical.texture import FILTERS, PATTERNS, Textons, filter_bank, local_binary_patterns


def test_the_banks_filters_on_a_ramp_and_on_a_constant():
    y, x = np.mgrid[:81, :81].astype(np.float32)
    lab = np.stack([2 * x + 3 * y, np.full_like(x, 5), -x], -1)
    answers = filter_bank(lab)
    assert answers.shape == (81, 81, FILTERS) and answers.dtype == np.float32
    # Far from the border: a Gaussian leaves a ramp as it is, a Laplacian gives 0, the derivatives along x and
    # y its slopes.
    expected = [200, 5, -40] * 3 + [0] * 4 + [2, 3] * 2
    assert answers[40, 40] == pytest.approx(expected, abs=0.05)


def test_the_laplacian_finds_a_blob_of_its_size():
    y, x = np.mgrid[:61, :61] - 30
    answers = []
    for radius in (2, 4, 8):  # the answer of sigma is strongest for a radius of √2·sigma
        lab = np.zeros((61, 61, 3), np.float32)
        lab[..., 0] = 100 * (x**2 + y**2 <= 2 * radius**2)
        blob = filter_bank(lab)[30, 30, 9:13] * np.square([1, 2, 4, 8])
        answers.append(int(np.abs(blob).argmax()))
    assert answers == [1, 2, 3]


def test_binary_patterns_by_hand():
    """A bright dot has no brighter neighbour, a dark one eight; what is not uniform goes to the last bin."""
    grey = np.full((7, 7, 3), 0.5, np.float32)
    grey[3, 3] = 1
    assert local_binary_patterns(grey)[3, 3] == 0
    grey[3, 3] = 0
    codes = local_binary_patterns(grey)
    assert codes[3, 3] == 8 and codes.min() >= 0 and codes.max() < PATTERNS
    cross = np.zeros((7, 7, 3), np.float32)
    cross[3, 3] = 0.5
    cross[3, 2] = cross[3, 4] = (
        1  # brighter on two opposite sides: four changes round the circle, not uniform
    )
    assert local_binary_patterns(cross)[3, 3] == PATTERNS - 1


def test_every_pixel_gets_the_nearest_centre(monkeypatch):
    rng = np.random.default_rng(0)
    textons = Textons(6)
    answers = (
        rng.normal(size=(500, FILTERS)).astype(np.float32) * np.linspace(0.1, 10, FILTERS, dtype=np.float32)
        + 3
    )
    textons.fit(answers, 0)
    monkeypatch.setattr(texture, "BAND", 64)
    found = textons(answers.reshape(20, 25, FILTERS)).ravel()
    white = (answers - answers.mean(0)) / answers.std(0)
    distance = np.square(white[:, None] - textons.centres.numpy()[None]).sum(2)
    assert np.array_equal(found, distance.argmin(1)) and len(set(found.tolist())) == 6


def test_fewer_pixels_than_words():
    textons = Textons(16)
    answers = np.eye(3, FILTERS, dtype=np.float32)
    textons.fit(answers, 0)
    assert len(set(textons(answers.reshape(1, 3, FILTERS)).ravel().tolist())) == 3
