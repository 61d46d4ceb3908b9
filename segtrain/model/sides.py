"""Networks that take images of certain sizes only: without padding, every pooled map has to be even."""

from __future__ import annotations

from torch import nn

from segtrain.errors import SizeError


def valid_side(net: nn.Module, at_least: int) -> int:
    """The smallest side in pixels, from `at_least` on, that `net` takes: one of first + k·step of its `tile_sides`, else any."""
    first, step = getattr(net, "tile_sides", (1, 1))
    return first + max(0, -(-(at_least - first) // step)) * step


def check_sides(net: nn.Module, height: int, width: int) -> None:
    """A SizeError that names the nearest valid sides if `net` takes no images of this size."""
    wrong = [side for side in (height, width) if valid_side(net, side) != side]
    if wrong:
        first, step = net.tile_sides
        nearest = "; ".join(f"next to {side}: {_nearest(side, first, step)}" for side in dict.fromkeys(wrong))
        raise SizeError(
            f"the network gets images of {height}x{width} px; it takes sides of {first} px and every {step} px from there on "
            f"({nearest}); use such a side (in training, augmentation.warp.size), or a network that pads"
        )


def _nearest(side: int, first: int, step: int) -> str:
    below = max(first, first + (side - first) // step * step)
    return f"{below} and {below + step}"
