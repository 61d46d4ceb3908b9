"""Flipped views of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class View:
    """forward: image batch -> the view. backward: the view's probabilities -> those of the image. Both
    …×H×W."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]


DIMENSIONS = {"horizontal": (-1,), "vertical": (-2,), "both": (-2, -1)}


def flip(axes: tuple[Literal["horizontal", "vertical", "both"], ...] = ("horizontal",)) -> list[View]:
    """The image and its flips.

    Options:
        axes: flips that are added to the plain image: horizontal, vertical, both (rotated by 180 degrees)
    """
    return [View(lambda x: x, lambda x: x)] + [_mirror(DIMENSIONS[axis]) for axis in axes]


def _mirror(dimensions: tuple[int, ...]) -> View:
    return View(lambda x: x.flip(dimensions), lambda x: x.flip(dimensions))
