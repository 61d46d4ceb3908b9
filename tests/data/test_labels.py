"""Class indices out of mask values and colours, by hand."""

import numpy as np
import pytest

from segtrain.data.labels import Labels
from segtrain.errors import DataError


def test_indices_pass_and_ignore_becomes_255():
    mask = np.array([[0, 1, 2], [11, 2, 1]], np.uint8)
    assert np.array_equal(Labels(3, ignore_index=11).target(mask, "m"), [[0, 1, 2], [255, 2, 1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_map_and_nothing_but_it(dtype):
    labels = Labels(2, label_map={7: 0, 8: 1, 0: 255})
    found = labels.target(np.array([[7, 8, 0, 255]], dtype), "m")
    assert found.dtype == np.uint8 and found.tolist() == [[0, 1, 255, 255]]
    with pytest.raises(DataError, match=r"mask m\.png holds 1 \(2 px\), 9 \(1 px\); allowed: the keys of data.label_map \(0, 7, 8\)"):
        labels.target(np.array([[7, 1, 1, 9]], dtype), "m.png")


def test_sixteen_bit_values_map_exactly():
    labels = Labels(2, label_map={1: 0, 257: 1})  # equal in their low byte
    assert labels.target(np.array([[1, 257]], np.uint16), "m").tolist() == [[0, 1]]


def test_values_outside_the_classes_are_counted():
    mask = np.full((4, 4), 200, np.uint8)
    mask[0] = 3
    with pytest.raises(DataError, match=r"mask a/b\.png holds 3 \(4 px\), 200 \(12 px\); allowed: 0\.\.2 and 255 \(no label\)"):
        Labels(3).target(mask, "a/b.png")


def test_colours_become_indices():
    colours = ((128, 0, 0), (0, 0, 0), (0, 128, 255))
    labels = Labels(3, colours=colours, ignored_colours=((255, 255, 255),))
    want = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
    table = np.array([*colours, *[(255, 255, 255)] * 253], np.uint8)
    assert np.array_equal(labels.target(table[want], "m"), want)


def test_unknown_colours_are_named_with_their_count():
    mask = np.zeros((3, 3, 3), np.uint8)
    mask[1] = (1, 2, 3)
    with pytest.raises(DataError, match=r"mask m\.png holds colours that no class has: \(1 2 3\) at 3 px"):
        Labels(2, colours=((0, 0, 0), (255, 0, 0))).target(mask, "m.png")


def test_a_coloured_mask_is_never_read_as_indices():
    with pytest.raises(DataError, match=r"mask m\.png is coloured \(RGB\), and the classes have no colours"):
        Labels(2).target(np.zeros((3, 3, 3), np.uint8), "m.png")


def test_all_255_classes_have_room():
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(Labels(255).target(mask, "m"), mask)
