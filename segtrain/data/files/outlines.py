"""Shapes drawn by hand, as areas of pixels.

Coordinates are those of drawing tools: x to the right and y down from the image's upper left corner, so that
pixel (row r, column c) covers c..c+1 and r..r+1. A pixel belongs to a shape if its centre lies inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
    """label: what it shows. kind: polygon (N×2 points), circle (centre and a point on it), ellipse (centre
    and radii), mask. points: float64[N, 2] of x, y. mask: h×w bool at `corner` (x, y), of kind mask. height:
    shapes are painted in ascending order."""

    label: str
    kind: str
    points: np.ndarray
    mask: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)
    height: int = 0


def area(shape: Shape, size: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """The window (rows, columns) of an image of size (H, W) that the shape touches, and h×w bool: its pixels
    there."""
    low, high = _bounds(shape)
    limits = (size[1], size[0])
    left, top = (int(np.clip(np.floor(value), 0, limit)) for value, limit in zip(low, limits, strict=True))
    right, bottom = (
        int(np.clip(np.ceil(value), 0, limit)) for value, limit in zip(high, limits, strict=True)
    )
    window = slice(top, max(top, bottom)), slice(left, max(left, right))
    if shape.kind == "mask":
        x, y = shape.corner
        return window, shape.mask[top - y : window[0].stop - y, left - x : window[1].stop - x]
    shifted = shape.points - (left, top)
    height, width = window[0].stop - top, window[1].stop - left
    if shape.kind == "polygon":
        return window, _inside(shifted, height, width)
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width)[None] + 0.5  # centres of the pixels
    x, y = shifted[0]
    across, down = _radii(shape)
    return window, ((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 <= 1


def _bounds(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest x, y that the shape reaches."""
    if shape.kind == "mask":
        corner = np.array(shape.corner)
        return corner, corner + shape.mask.shape[::-1]
    if shape.kind == "polygon":
        return shape.points.min(0), shape.points.max(0)
    return shape.points[0] - _radii(shape), shape.points[0] + _radii(shape)


def _radii(shape: Shape) -> np.ndarray:
    if shape.kind == "ellipse":
        return np.maximum(shape.points[1], 1e-9)
    return np.full(2, max(np.hypot(*(shape.points[1] - shape.points[0])), 1e-9))


def _inside(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """height×width bool: pixels whose centre lies inside of a polygon (even-odd rule). Along each row of
    centres, every edge that crosses it turns the pixels right of the crossing."""
    turns = np.zeros((height, width + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        first, last = (int(np.clip(np.ceil(y - 0.5), 0, height)) for y in sorted((y0, y1)))
        if first < last:
            rows = np.arange(first, last)
            crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.intp)
            turns[rows, columns] += 1
    return (np.cumsum(turns, axis=1) % 2 == 1)[:, :width]


def paint(
    shapes: Sequence[tuple[Shape, int]], size: tuple[int, int], background: int
) -> tuple[np.ndarray, int]:
    """Target, H×W uint8, of shapes with their values; later ones and higher ones cover others. And the
    number of pixels on which shapes of different values lie."""
    target = np.full(size, background, np.uint8)
    painted, twice = np.zeros(size, bool), np.zeros(size, bool)
    for shape, value in sorted(shapes, key=lambda one: one[0].height):  # stable: else in their order
        window, inside = area(shape, size)
        twice[window] |= inside & painted[window] & (target[window] != value)
        target[window][inside] = value
        painted[window] |= inside
    return target, int(twice.sum())
