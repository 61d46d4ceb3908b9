"""Options of networks as they are typed, and the limits of those that several networks share."""

from __future__ import annotations

from collections.abc import Mapping

from segtrain.errors import ConfigError


def check_counts(**counts: int) -> None:
    """Numbers of channels or layers."""
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"model.{name} is {count}; allowed: an integer from 1")


def check_rates(rates: tuple[int, ...] | None) -> None:
    if rates is not None and min(rates, default=1) < 1:
        raise ConfigError(f"model.rates is {list(rates)}; allowed: integers from 1, or null")


def check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout is {dropout}; allowed: 0 up to, not including, 1")


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
