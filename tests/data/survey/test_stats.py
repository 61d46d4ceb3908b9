"""How often classes occur, by hand."""

import numpy as np
import pytest

from segtrain.data.survey.stats import Frequency, frequency
from segtrain.errors import DataError
from segtrain.sample import IGNORE


def test_frequency_by_hand():
    class Two:
        targets = (np.array([[0, 0, 1]], np.uint8), np.array([[1, 255, 2], [1, 1, 1]], np.uint8))

        def __len__(self):
            return 2

        def target(self, index):
            return self.targets[index]

    found = frequency(Two(), 4)
    assert isinstance(found, Frequency) and found.pixels.dtype == found.in_images.dtype == np.int64
    assert found.pixels.tolist() == [2, 5, 1, 0] and found.in_images.tolist() == [3, 8, 5, 0]


def test_frequency_of_nothing_is_refused():
    class Unlabelled:
        def __len__(self):
            return 1

        def target(self, index):
            return np.full((2, 2), IGNORE, np.uint8)

        def name(self, index):
            return "images/a.png"

    with pytest.raises(DataError, match=r"no pixel of 1 sample has a label, images/a\.png first"):
        frequency(Unlabelled(), 2)
