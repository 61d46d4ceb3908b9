"""Networks that take images of certain sizes only: without padding, features have even sides before every
pooling and at least one pixel after the last."""

from __future__ import annotations

from segtrain.errors import ConfigError, SizeError
from segtrain.model.network import Network


def valid_side(net: Network, at_least: int) -> int:
    """The smallest side in pixels, from `at_least` on, that `net` takes: one of first + k·step, both from its
    `tile_sides`."""
    first, step = net.tile_sides
    return first + max(0, -(-(at_least - first) // step)) * step


def check_side(net: Network, key: str, side: int) -> None:
    """ConfigError if `net` takes no images of this side. It names `key`, which sets the side, and the nearest
    valid sides."""
    if valid_side(net, side) != side:
        raise ConfigError(f"{key} is {side}; allowed for this network: {_allowed(net, [side])}")


def check_sides(net: Network, height: int, width: int) -> None:
    """SizeError if `net` takes no images of this size. It names the nearest valid sides."""
    wrong = [side for side in (height, width) if valid_side(net, side) != side]
    if wrong:
        raise SizeError(
            f"the network gets images of {height}x{width} px; it takes {_allowed(net, wrong)}; "
            "use such a side (in training, augmentation.warp.size), or another network"
        )


def _allowed(net: Network, wrong: list[int]) -> str:
    first, step = net.tile_sides
    if step == 1:
        return f"sides from {first} px"
    nearest = "; ".join(f"next to {side}: {_nearest(side, first, step)}" for side in dict.fromkeys(wrong))
    return f"sides of {first} px and every {step} px from there on ({nearest})"


def _nearest(side: int, first: int, step: int) -> str:
    below = max(first, first + (side - first) // step * step)
    return f"{below} and {below + step}"
