"""Groups of images (a patient, a video, a place), which splits keep together."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable

from segtrain.data.files.pairs import composed
from segtrain.data.files.reading import SUFFIXES
from segtrain.errors import ConfigError, DataError, nearest
from segtrain.text import count

TABLE = re.compile(r"(.+\.[ct]sv):([^:]+)", re.IGNORECASE | re.DOTALL)
NAME_COLUMNS = ("image", "name", "file", "filename", "file_name", "image_name", "path", "image_id", "id")


def groups_of(group: str | None, names: Iterable[str], root: str | None) -> dict[str, str]:
    """{name: its group} by the option data.group: a regular expression, whose first capture group (without
    one: the match) in the name is the group, or 'FILE.csv:COLUMN'. {} for None.

    ConfigError for a wrong expression or a table without that column; DataError for names without a group.
    """
    if group is None:
        return {}
    names = list(names)
    table = TABLE.fullmatch(group)
    found = _by_table(table[1], table[2], names, root) if table else _by_expression(group, names)
    missing = [name for name in names if not found.get(name)]
    if missing:
        raise DataError(
            f"data.group={group} gives no group to {len(missing)} of {count(len(names), 'image')}, "
            f"{missing[0]!r} first; each image needs one; correct the expression or the table"
        )
    return found


def _by_expression(group: str, names: list[str]) -> dict[str, str]:
    try:
        expression = re.compile(group)
    except re.error as error:
        raise ConfigError(
            f"data.group={group} is no regular expression ({error}); give one whose first brackets hold the "
            f"group in an image's name, such as '(patient\\d+)_', or FILE.csv:COLUMN"
        ) from error
    matches = {name: expression.search(name) for name in names}
    return {name: match[1 if expression.groups else 0] or "" for name, match in matches.items() if match}


def _by_table(path: str, column: str, names: list[str], root: str | None) -> dict[str, str]:
    below = os.path.join(root or "", path)
    path = below if os.path.isfile(below) else path
    if not os.path.isfile(path):
        raise ConfigError(f"data.group names the table {path!r}, which is not a file; give an existing one")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.lower().endswith(".tsv") else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"data.group: {path} cannot be read as a table ({error})") from error
    head = [cell.strip() for cell in rows[0]] if rows else []
    if column not in head:
        raise ConfigError(
            f"data.group: {path} has no column {column}{nearest(column, head)}; there are {', '.join(head)}"
        )
    named = next((i for i, cell in enumerate(head) if cell.lower() in NAME_COLUMNS and cell != column), 0)
    place = head.index(column)
    of_row: dict[str, str] = {}
    without_folder: dict[str, set[str]] = {}
    for row in rows[1:]:
        if len(row) > max(named, place):
            key, found = _key(row[named]), row[place].strip()
            if of_row.setdefault(key, found) != found:
                raise DataError(
                    f"data.group: {path} gives {key!r} two groups, {of_row[key]!r} and {found!r}; each image "
                    f"has one"
                )
            without_folder.setdefault(key.rsplit("/", 1)[-1], set()).add(found)
    only = {key: next(iter(found)) for key, found in without_folder.items() if len(found) == 1}
    return {
        name: of_row.get(composed(name)) or only.get(composed(name.rsplit("/", 1)[-1]), "") for name in names
    }


def _key(cell: str) -> str:
    """The name of an image as a table has it, without suffix."""
    name = os.path.normpath(cell.strip()).replace(os.sep, "/")
    stem, suffix = os.path.splitext(name)
    return composed(stem if suffix.lower() in SUFFIXES else name)
