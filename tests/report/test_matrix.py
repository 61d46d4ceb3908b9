"""The picture of a confusion matrix: the colours of its cells."""

import numpy as np

from segtrain.report.matrix import CELL_PX, RIGHT, WRONG, confusion_picture
from segtrain.report.sheet import GAP_PX


def cells(picture, num_classes: int, place=(2, 2)) -> np.ndarray:
    """C×C×3: the colour of each cell near its upper left corner, beside the number."""
    pixels = np.asarray(picture)
    side = num_classes * CELL_PX
    top = picture.height - GAP_PX - side
    lines = (pixels[top + 3] == 215).all(-1)
    left = np.flatnonzero(lines)[0]
    at = [CELL_PX * i + 2 for i in range(num_classes)]
    return np.array([[pixels[top + y, left + x] for x in at] for y in at])


def test_colours_show_the_shares_of_a_row():
    matrix = np.array([[50, 0, 0], [900, 100, 0], [0, 0, 0]])
    found = cells(confusion_picture(matrix, ("road", "tree", "ü\n"), "title"), 3)
    assert found[0, 0].tolist() == list(RIGHT) and found[0, 1].tolist() == [255] * 3
    for share, column, colour in ((0.9, 0, WRONG), (0.1, 1, RIGHT)):
        expected = [round(255 + share**0.5 * (one - 255)) for one in colour]
        assert found[1, column].tolist() == expected
    assert (found[2] == 255).all()  # no pixel of the third class


def test_forty_names_have_room_and_many_classes_fit_on_a_screen():
    names = [f"a class of number {i}" for i in range(40)]
    picture = confusion_picture(np.eye(40, dtype=np.int64), names, "title")
    assert 40 * CELL_PX < picture.width < 1400 and picture.height < 1400
    assert confusion_picture(np.eye(150, dtype=np.int64), [str(i) for i in range(150)], "").width < 2400
