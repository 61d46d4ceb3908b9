"""Objects of a sample: instances, or connected components."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from segtrain.sample import Sample

SMALLEST_SHARE = 0.001
"""Of the image's pixels: smaller objects are not chosen if there are larger ones."""


def objects_of(sample: Sample, classes: Sequence[int]) -> np.ndarray:
    """H×W integers: a different number for each object, 0 elsewhere.

    Objects are the sample's instances; if it has none, the connected components (8-connectivity) of each
    class in `classes`.
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
    """int[N]: numbers of the objects of at least SMALLEST_SHARE of the image; of all objects if none is
    that large."""
    areas = np.bincount(objects.ravel())
    areas[0] = 0
    large = np.flatnonzero(areas >= max(1, SMALLEST_SHARE * objects.size))
    return large if len(large) else np.flatnonzero(areas)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Bounding box (top, left, bottom, right) of the pixels that are set; bottom and right exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
