"""Limits of options that several networks share; each error names the option as it is typed."""

from __future__ import annotations

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
