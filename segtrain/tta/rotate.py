"""Views rotated by any angle."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from segtrain.options import Length, between
from segtrain.sample import View
from segtrain.tta.rot90 import quarters

Angles = Annotated[tuple[Annotated[float, between(-180, 180)], ...], Length(1, 36)]

COUNTED = 0.999
"""Weight there and back from which a pixel counts: all that it was interpolated from lies in the image."""


def rotate(
    valid_side: Callable[[int], int], angles: Angles = (-5.0, 5.0), expand: bool = False
) -> list[View]:
    """Rotations about the centre of the image, bilinear; what lies beyond the border is mirrored in.

    The probabilities are rotated back. Where they stem from beyond the image or the rotated canvas, and one
    pixel around, the view has no weight. Multiples of 90 degrees are not interpolated.

    Options:
        angles: in degrees, counter-clockwise; 0 is the plain image, which is always among the views
        expand: enlarge the canvas, so that the corners of the image stay on it
    """
    chosen = dict.fromkeys(angle % 360 for angle in angles)
    return [_view(angle, expand, valid_side) for angle in chosen if angle]


def _view(degrees: float, expand: bool, valid_side: Callable[[int], int]) -> View:
    if degrees % 90 == 0:
        return quarters(int(degrees // 90))

    def canvas(size: tuple[int, int]) -> tuple[int, int]:
        return _enlarged(size, degrees, valid_side) if expand else size

    def forward(images: Tensor) -> Tensor:
        size = tuple(images.shape[-2:])
        turned = _rotated(images.float(), degrees, canvas(size), "reflection")
        # The normalisation depends on the dtype.
        return turned if images.is_floating_point() else turned.round_().to(images.dtype)

    def backward(probabilities: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        weight = _validity(size, tuple(probabilities.shape[-2:]), degrees, probabilities.device)
        back = _rotated(probabilities, -degrees, size, "zeros")
        return back, weight.to(back.dtype).expand(len(back), 1, *size)

    return View(forward, backward)


def _rotated(x: Tensor, degrees: float, size: tuple[int, int], padding: str) -> Tensor:
    """B×C×h×w: `x` (B×C×H×W float) rotated counter-clockwise about its centre onto a canvas of (h, w)."""
    (height, width), (rows, columns) = x.shape[-2:], size
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # From coordinates -1..1 of the canvas to those of x; both measure half sides.
    matrix = [
        [cos * columns / width, -sin * rows / width, 0.0],
        [sin * columns / height, cos * rows / height, 0.0],
    ]
    theta = torch.tensor([matrix], device=x.device)
    grid = F.affine_grid(theta, [1, 1, rows, columns], align_corners=False).to(x.dtype)  # 1×h×w×2
    grid = grid.expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=padding, align_corners=False)


@functools.lru_cache(maxsize=16)
def _validity(size: tuple[int, int], canvas: tuple[int, int], degrees: float, device: torch.device) -> Tensor:
    """1×1×H×W bool: whether a pixel of the image comes back from the canvas without a share from beyond."""
    there = _rotated(torch.ones(1, 1, *size, device=device), degrees, canvas, "zeros")
    lost = (_rotated(there, -degrees, size, "zeros") <= COUNTED).float()
    return F.max_pool2d(lost, kernel_size=3, stride=1, padding=1) == 0  # eroded by 1 px


def _enlarged(size: tuple[int, int], degrees: float, valid_side: Callable[[int], int]) -> tuple[int, int]:
    """(h, w) of a canvas that holds the rotated image of (H, W), of sides that the network takes."""
    height, width = size
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    rows, columns = cos * height + sin * width, sin * height + cos * width
    return valid_side(math.ceil(rows)), valid_side(math.ceil(columns))
