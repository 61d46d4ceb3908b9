"""Values and counts as text, for messages and the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segtrain.errors import printable


def say(*lines: str) -> None:
    """Prints lines on stdout. Control characters, which names of files and classes may hold, are escaped."""
    print("\n".join(map(printable, lines)), flush=True)


def notice(line: str) -> None:
    """Prints a warning on stderr, escaped as by `say`."""
    print(f"segtrain: {printable(line)}", file=sys.stderr, flush=True)


def show(value) -> str:
    """The value as a user would type it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(show, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{show(one)}" for key, one in value.items()) + "}"
    return str(value)


def flatten(config: Mapping, prefix: str = "") -> dict[str, Any]:
    """A nested config with dotted keys: {"trainer.steps": 100, …}. Lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def count(number: int, one: str, many: str = "") -> str:
    """`1 image`, `2 images`. many: the plural, if it is not `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table: columns as wide as their widest cell, the first `left` ones flush left, the others
    right."""
    lines = [tuple(map(printable, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(_padded(cell, widths[i], i < left) for i, cell in enumerate(row)).rstrip() for row in lines
    ]


def _padded(cell: str, width: int, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def number(value: float | int | None, digits: int = 4) -> str:
    """A score as tables show it: '-' for None, integers as they are."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"
