"""Bars are as long as their numbers."""

import numpy as np

from segtrain.report.bars import BAR_PX, Bar, panel
from segtrain.report.class_bars import class_bars

RED, BLUE = (200, 0, 0), (0, 0, 200)


def length(picture, colour) -> int:
    """Widest run of pixels of a colour in a row, with the outline of 1 px on both sides."""
    return int((np.asarray(picture) == colour).all(axis=-1).sum(axis=1).max()) + 2


def test_a_bar_is_as_long_as_its_share():
    picture = panel("title", [Bar("a", RED, 0, 1, "all"), Bar("b" * 200, BLUE, 0.25, 0.75, "half", mark=0.5)])
    assert abs(length(picture, RED) - BAR_PX) <= 1
    assert abs(length(picture, BLUE) - (BAR_PX / 2 - 5)) <= 1  # but for the 5 px of the mark
    assert abs(picture.width - panel("title", [Bar("c" * 200, RED, 0, 1, "")]).width) < 20


def test_the_chart_of_a_split():
    areas = {"min": 1.0, "first_quartile": 10.0, "median": 100.0, "third_quartile": 1000.0, "max": 10000.0}
    record = {
        "images": 30,
        "objects": 7,
        "sizes": [{"height": 4 + n, "width": 5, "images": 10 - n} for n in range(10)],
        "classes": {
            "red": {"share": 0.8, "images": 30, "objects": {"count": 7, "area_px": areas}},
            "blue": {"share": 0.2, "images": 15, "objects": None},
        },
    }
    picture = np.asarray(class_bars(record, [RED, BLUE], "data train"))
    row = {colour: (picture == colour).all(axis=-1).sum(axis=1).max() for colour in (RED, BLUE)}
    # Red: the longest bar of pixels, all images, half of the logarithmic scale of areas; blue: 1/4 and 1/2.
    assert abs(row[RED] - (1 + 1 + 0.5) * BAR_PX) < 16
    assert abs(row[BLUE] - (0.25 + 0.5) * BAR_PX) < 12
