"""Flipped views of an image."""

from __future__ import annotations

from typing import Literal

from segtrain.sample import View

DIMENSIONS = {"horizontal": (-1,), "vertical": (-2,), "both": (-2, -1)}


def flip(axes: tuple[Literal["horizontal", "vertical", "both"], ...] = ("horizontal",)) -> list[View]:
    """The image and its mirror images.

    Options:
        axes: horizontal (left and right change places), vertical, both (turned by 180 degrees)
    """
    return [_mirror(DIMENSIONS[axis]) for axis in axes]


def _mirror(dimensions: tuple[int, ...]) -> View:
    return View(lambda images: images.flip(dimensions), lambda found, size: (found.flip(dimensions), 1.0))
