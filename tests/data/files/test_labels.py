"""Class indices out of mask values and colours, by hand."""

import numpy as np
import pytest

from segtrain.data.files.labels import Labels
from segtrain.errors import DataError
from segtrain.sample import voc_palette


def test_indices_pass_and_ignore_becomes_255():
    mask = np.array([[0, 1, 2], [11, 2, 1]], np.uint8)
    assert np.array_equal(Labels(3, ignore_index=11).target(mask, "m"), [[0, 1, 2], [255, 2, 1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_map_and_nothing_but_it(dtype):
    labels = Labels(2, label_map={7: 0, 8: 1, 0: 255})
    found = labels.target(np.array([[7, 8, 0, 255]], dtype), "m")
    assert found.dtype == np.uint8 and found.tolist() == [[0, 1, 255, 255]]
    with pytest.raises(
        DataError,
        match=r"mask m\.png holds 1 \(2 px\), 9 \(1 px\); allowed: the keys of data.label_map \(0, 7, 8\)",
    ):
        labels.target(np.array([[7, 1, 1, 9]], dtype), "m.png")


def test_sixteen_bit_colours_are_those_of_8_bits_scaled():
    labels = Labels(2, colours=((0, 0, 0), (255, 0, 17)))
    mask = np.array([[[0, 0, 0], [255, 0, 17]]], np.uint16)
    assert labels.target(mask * 257, "m").tolist() == labels.target(mask * 256, "m").tolist() == [[0, 1]]
    with pytest.raises(DataError, match=r"mask m has 16-bit colours .* at 1 px; .* save it with 8 bits"):
        labels.target(mask, "m")  # by its high bytes, all of it would be black


def test_sixteen_bit_values_map_exactly():
    labels = Labels(2, label_map={1: 0, 257: 1})  # equal in their low byte
    assert labels.target(np.array([[1, 257]], np.uint16), "m").tolist() == [[0, 1]]


def test_values_outside_the_classes_are_counted():
    mask = np.full((4, 4), 200, np.uint8)
    mask[0] = 3
    with pytest.raises(
        DataError,
        match=r"mask a/b\.png holds 3 \(4 px\), 200 \(12 px\); allowed: 0\.\.2 and 255 \(no label\)",
    ):
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
    mask = np.ones((3, 3, 3), np.uint8)
    mask[2, 2, 2] = 0
    with pytest.raises(DataError, match=r"mask m\.png is coloured \(RGB\), and the classes have no colours"):
        Labels(2).target(mask, "m.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mask_of_three_equal_channels_is_grey_unless_classes_have_colours(dtype):
    full = np.iinfo(dtype).max
    mask = np.repeat(np.array([[0, full, 1]], dtype)[..., None], 3, axis=2)
    assert Labels(2, label_map={0: 0, full: 1, 1: 255}).target(mask, "m").tolist() == [[0, 1, 255]]
    assert Labels(2, colours=((255, 255, 255), (0, 0, 0))).target(mask[:, :2], "m").tolist() == [[1, 0]]


NAMED = ((10, 20, 30), (200, 0, 0), (0, 0, 200))
INDICES = np.array([[0, 1], [2, 255]], np.uint8)


@pytest.mark.parametrize(
    ("palette", "expected"),
    [
        (NAMED, [[0, 1], [2, 255]]),
        ((NAMED[1], NAMED[0], NAMED[2]), [[1, 0], [2, 255]]),
        ((NAMED[1], (9, 9, 9), NAMED[2]), [[1, 255], [2, 255]]),  # (9 9 9) is a colour without label
        (
            (NAMED[1], NAMED[0], NAMED[2], *[NAMED[1]] * 253),
            [[1, 0], [2, 255]],
        ),  # filled up: 255 stays without label
        ((*NAMED[:0:-1], (9, 9, 9), *[(0, 0, 0)] * 252, NAMED[0]), [[2, 1], [255, 0]]),
        (voc_palette(256), [[0, 1], [2, 255]]),  # no colour in common
        ([(i, i, i) for i in range(256)], [[0, 1], [2, 255]]),
        ([], [[0, 1], [2, 255]]),
    ],
)
def test_a_palette_counts_where_its_colours_are_those_of_classes(palette, expected):
    labels = Labels(3, colours=NAMED, ignored_colours=((9, 9, 9),))
    palette = np.array(palette, np.uint8).reshape(-1, 3)
    assert labels.target(INDICES, "m", palette).tolist() == expected
    by_index = [[0, 1], [2, 255]]
    assert (
        labels.target(INDICES, "m").tolist() == Labels(3).target(INDICES, "m", palette).tolist() == by_index
    )
    mapped = Labels(3, label_map={0: 0, 1: 1, 2: 2}, colours=NAMED)
    assert mapped.target(INDICES, "m", palette).tolist() == by_index


def test_black_at_the_start_of_a_palette_is_no_sign_of_its_meaning():
    labels = Labels(3, colours=((0, 0, 0), (255, 0, 0), (0, 255, 0)))
    assert labels.target(INDICES, "m", np.array(voc_palette(256), np.uint8)).tolist() == [[0, 1], [2, 255]]


@pytest.mark.parametrize(
    ("palette", "message"),
    [
        (
            (NAMED[1], NAMED[0], (5, 6, 7)),
            r"index 2 has the colour \(5 6 7\), class 2 has \(0 0 200\); index 0 has \(200 0 0\), which is class 1",
        ),
        ((NAMED[1], NAMED[0]), r"index 2 has no colour, class 2 has \(0 0 200\); index 0 has \(200 0 0\)"),
        (
            (NAMED[0], NAMED[1], (5, 6, 7)),
            r"index 2 has the colour \(5 6 7\).*index 0 has \(10 20 30\), which is class 0",
        ),
    ],
)
def test_a_palette_of_which_only_a_part_is_named_is_refused(palette, message):
    with pytest.raises(DataError, match=r"mask a/m\.png has a palette in which only some.*" + message):
        Labels(3, colours=NAMED).target(INDICES, "a/m.png", np.array(palette, np.uint8))
    used = np.array([[0, 1]], np.uint8)  # what is not in use does not matter
    Labels(3, colours=NAMED).target(used, "m", np.array(palette, np.uint8))


def test_all_255_classes_have_room():
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(Labels(255).target(mask, "m"), mask)
