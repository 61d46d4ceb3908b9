"""Options of networks as they are typed, and the limits of those that several networks share."""

from __future__ import annotations

from collections.abc import Mapping

from segtrain.options import between

CHANNELS = between(1, 4096)
"""Channels of one layer; fully connected layers of VGG16 have 4096."""
RATE = between(1, 4096)
"""Atrous rates: larger ones reach beyond any image."""
EPS = between(1e-10, 1)
"""What batch normalisation adds to the variance: below, float32 rounds it away."""


def typed(options: Mapping) -> str:
    """Options of a network, `name` being which one, as words of the command line."""
    return " ".join(
        f"{'model' if key == 'name' else f'model.{key}'}={as_typed(value)}" for key, value in options.items()
    )


def as_typed(value) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(as_typed, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
