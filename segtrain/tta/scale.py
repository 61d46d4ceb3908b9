"""Views of other sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from segtrain.options import Length, between
from segtrain.sample import View

Factors = Annotated[tuple[Annotated[float, between(0.1, 4)], ...], Length(1, 16)]


def scale(
    valid_side: Callable[[int], int], factors: Factors = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
) -> list[View]:
    """The image at several scales, bilinear, each of sides that the network takes. Default: the scales of
    DeepLab's evaluation on Pascal VOC.

    Options:
        factors: of height and width; 1 is the plain image, which is always among the views
    """
    return [_view(factor, valid_side) for factor in dict.fromkeys(factors) if factor != 1]


def _view(factor: float, valid_side: Callable[[int], int]) -> View:
    def forward(images: Tensor) -> Tensor:
        size = tuple(valid_side(max(1, round(factor * side))) for side in images.shape[-2:])
        scaled = _resized(images.float(), size)
        # The normalisation depends on the dtype.
        return scaled if images.is_floating_point() else scaled.round_().to(images.dtype)

    return View(forward, lambda probabilities, size: (_resized(probabilities, size), 1.0))


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
