"""The objects of a sample: its instances, or connected components of one class."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from segtrain.sample import Sample

SMALLEST_SHARE = 0.001
"""Of the image's pixels: smaller objects are left alone where there are larger ones."""


def objects_of(sample: Sample, classes: Sequence[int]) -> np.ndarray:
    """H×W integers: 0 where there is no object, the same number all over an object.

    The instances of the sample if it has them; else the connected components (8-connectivity) of each of the
    classes.
    """
    if sample.instances is not None:
        return sample.instances
    found = np.zeros(sample.target.shape, np.int32)
    count = 0
    for index in classes:
        inside = sample.target == index
        if inside.any():
            parts, labels = cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)
            found[inside] = labels[inside] + count
            count += parts - 1
    return found


def worth_a_look(objects: np.ndarray) -> np.ndarray:
    """int[N], numbers of the objects that are not tiny; of all objects if all are tiny."""
    areas = np.bincount(objects.ravel())
    areas[0] = 0
    large = np.flatnonzero(areas >= max(1, SMALLEST_SHARE * objects.size))
    return large if len(large) else np.flatnonzero(areas)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the pixels that are set, the last two exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
