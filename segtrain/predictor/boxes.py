"""Inference over boxes of the image, as in DeconvNet (Noh et al. 2015, "Learning deconvolution network",
sec. 4.4).

A network that was trained on crops of one size handles objects at one scale; boxes of several sizes, each
resized to its input, cover large and small objects. The paper takes the boxes from 50 object proposals; here
they lie on a regular grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.predictor.tiles import starts

LEAST_SIDE = 112
"""Smaller boxes are left out, as in the published code: enlarged twice and more they show nothing."""
OVERLAP = 0.5


def merged_over_boxes(
    scores: Callable[[Tensor], Tensor], sides: tuple[int, ...] | None, box_input: int
) -> Callable[[Tensor], Tensor]:
    """The maximum over the boxes of each pixel's score of each class, at least 0 (as in the published code,
    whose canvas is initialised with 0).

    scores: B×K×N×N normalised images -> their B×C×N×N scores, N = box_input. The result is a function of
    B×K×H×W normalised images.
    sides: of the square boxes, in pixels; None: the image's longer side and its halves. What of a box lies
    outside of the image is 0, the mean pixel.
    """

    def merged(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        canvas = None
        for side in box_sides(height, width, sides):
            for top, left in itertools.product(starts(height, side, OVERLAP), starts(width, side, OVERLAP)):
                box = images[..., top : top + side, left : left + side]
                rows, columns = box.shape[-2:]
                box = F.pad(box, (0, side - columns, 0, side - rows))
                part = _resized(scores(_resized(box, box_input, antialias=True)), side)[..., :rows, :columns]
                canvas = part.new_zeros(*part.shape[:2], height, width) if canvas is None else canvas
                place = canvas[..., top : top + rows, left : left + columns]
                torch.maximum(place, part, out=place)
        return canvas

    return merged


def check_box_sides(sides: tuple[int, ...] | None) -> None:
    if sides is not None and (not sides or min(sides) < LEAST_SIDE):
        raise ConfigError(
            f"predictor.box_sides is {list(sides)}; allowed: integers from {LEAST_SIDE}, or null"
        )


def box_sides(height: int, width: int, wanted: tuple[int, ...] | None) -> list[int]:
    """Sides of the boxes of an image, largest first; none is longer than the image."""
    longest = max(height, width)
    if wanted is not None:
        return sorted({min(side, longest) for side in wanted}, reverse=True)
    return [
        longest,
        *(
            longest >> halvings
            for halvings in range(1, longest.bit_length())
            if longest >> halvings >= LEAST_SIDE
        ),
    ]


def _resized(images: Tensor, side: int, antialias: bool = False) -> Tensor:
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=antialias)
