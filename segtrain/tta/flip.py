"""Flipped views of an image."""

from __future__ import annotations

from typing import Literal

from segtrain.sample import IDENTITY, View

DIMENSIONS = {"horizontal": (-1,), "vertical": (-2,), "both": (-2, -1)}


def flip(axes: tuple[Literal["horizontal", "vertical", "both"], ...] = ("horizontal",)) -> list[View]:
    """The image and its flips.

    Options:
        axes: flips that are added to the plain image: horizontal, vertical, both (rotated by 180 degrees)
    """
    return [IDENTITY, *(_mirror(DIMENSIONS[axis]) for axis in axes)]


def _mirror(dimensions: tuple[int, ...]) -> View:
    return View(lambda x: x.flip(dimensions), lambda x, size: (x.flip(dimensions), 1.0))
