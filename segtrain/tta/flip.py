"""Flipped views of an image."""

from __future__ import annotations

from typing import Literal

from segtrain.sample import View

DIMENSIONS = {"horizontal": (-1,), "vertical": (-2,), "both": (-2, -1)}


def flip(axes: tuple[Literal["horizontal", "vertical", "both"], ...] = ("horizontal",)) -> list[View]:
    """Flips of the image.

    Options:
        axes: horizontal (left to right), vertical (top to bottom), both (rotation by 180 degrees)
    """
    return [_mirror(DIMENSIONS[axis]) for axis in axes]


def _mirror(dimensions: tuple[int, ...]) -> View:
    return View(
        lambda images: images.flip(dimensions),
        lambda probabilities, size: (probabilities.flip(dimensions), 1.0),
    )
