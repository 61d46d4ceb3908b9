"""Values and counts as text, for messages and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def show(value) -> str:
    """A value as it can be typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(show, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{show(one)}" for key, one in value.items()) + "}"
    return str(value)


def flatten(config: Mapping, prefix: str = "") -> dict[str, Any]:
    """{"trainer.steps": 100, …}. Lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def count(number: int, one: str, many: str = "") -> str:
    """`1 image`, `2 images`; `many` where it is not `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
