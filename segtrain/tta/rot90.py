"""Views turned by quarters of a full turn, without interpolation."""

from __future__ import annotations

from typing import Annotated, Literal

import torch

from segtrain.options import Length
from segtrain.sample import View


def rot90(turns: Annotated[tuple[Literal[90, 180, 270], ...], Length(1, 3)] = (90, 180, 270)) -> list[View]:
    """Rotations by quarter turns; no pixel is interpolated.

    Options:
        turns: angles in degrees, counter-clockwise: 90, 180 or 270
    """
    return [quarters(turn // 90) for turn in dict.fromkeys(turns)]


def quarters(number: int) -> View:
    """The view turned counter-clockwise by `number` quarter turns."""
    return View(
        lambda images: torch.rot90(images, number, (-2, -1)),
        lambda probabilities, size: (torch.rot90(probabilities, -number, (-2, -1)), 1.0),
    )
