"""Values and counts as text, for messages and the terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from segtrain.errors import printable


def say(*lines: str) -> None:
    """Prints lines on stdout. Control characters, which names of files and classes may hold, are escaped."""
    print("\n".join(map(printable, lines)), flush=True)


quiet = False
"""Whether notices are left out: on ranks above 0."""


def notice(line: str) -> None:
    """Prints a warning on stderr, escaped as by `say`."""
    if not quiet:
        print(f"segtrain: {printable(line)}", file=sys.stderr, flush=True)


def show(value) -> str:
    """A value in the syntax of an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(show, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{show(one)}" for key, one in value.items()) + "}"
    return str(value)


def flatten(config: Mapping, prefix: str = "") -> dict[str, Any]:
    """{"trainer.steps": 100, …}. Lists and empty mappings are not flattened."""
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


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: Collection[int] = (0,),
    widest: int | None = None,
) -> list[str]:
    """Lines of a table whose columns are as wide as their widest cell.

    left: indices of the columns that are flush left; the others are flush right. widest: limit of the widths;
    a wider cell moves the rest of its line.
    """
    lines = [tuple(map(printable, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths = widths if widest is None else [min(width, widest) for width in widths]
    return [
        "  ".join(_padded(cell, widths[i], i in left) for i, cell in enumerate(row)).rstrip() for row in lines
    ]


def _padded(cell: str, width: int, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def amount(count: int | None) -> str:
    """A large count in three digits: 69223317504 as '69.2 G'; '-' for None."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count is not None and count >= size:
            return f"{count / size:.{max(0, 3 - len(str(count // size)))}f} {unit}"
    return "-" if count is None else str(count)


def number(value: float | int | None, digits: int = 4) -> str:
    """A score as tables show it: '-' for None, integers as they are."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"
