"""Files that name classes, in the formats of this program and of labelling tools."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from segtrain.errors import ConfigError, DataError
from segtrain.run.own import parsed
from segtrain.run.plain_yaml import check_plain, parse_yaml
from segtrain.sample import IGNORE

MAX_CHARACTERS = 1_000_000
NO_LABEL = "ignore"  # name of the line of classes.txt that gives the colour of unlabelled pixels
LABELME_IGNORED = "__ignore__"  # first line of labelme's labels.txt, which is no class
NAMES = ("name", "class", "label", "class_name", "class name", "category")
VALUES = ("pixel value", "pixel_value", "value", "id", "index", "idx", "class_id", "label_id")
CHANNELS = (("r", "red"), ("g", "green"), ("b", "blue"))
CVAT = re.compile(r"([^:]+):(?:(\d+),(\d+),(\d+))?:[^:]*:[^:]*")  # label:color_rgb:parts:actions
NUMBERED = re.compile(r"(\d+)\s*[:;,\s]\s*(\D.*)", re.DOTALL)
ALLOWED = (
    "a text file with one name a line (or 'name r g b'), CSV with a head (Roboflow's _classes.csv), CVAT's "
    "labelmap.txt, YAML with names: (data.yaml of YOLO), JSON of Label Studio, COCO or Supervisely"
)

Colour = tuple[int, int, int]


class Entry(NamedTuple):
    """A class: its name, its colour if it has one, and its value in the masks if the file says it."""

    name: str
    colour: Colour | None = None
    value: int | None = None


def read_class_file(path: str) -> list[Entry]:
    """The classes of a file, in its order. DataError for a file that cannot be read, ConfigError for a format
    that is not known, by its name."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(MAX_CHARACTERS)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.classes={path} cannot be read as UTF-8 text ({error})") from error
    suffix, start = os.path.splitext(path)[1].lower(), text.lstrip()[:200]
    # Not splitlines: a name may hold a character that it takes for the end of a line.
    lines = [line for line in map(str.strip, text.split("\n")) if line and not line.startswith("#")]
    if suffix in (".yaml", ".yml"):
        return _of_yaml(text, path)
    if suffix == ".json" or start.startswith(("{", "[")):
        return _of_json(text, path)
    if suffix == ".xml" or start.startswith("<"):
        raise _unknown(path, "XML")
    if suffix == ".pbtxt" or re.match(r"item\s*\{", start):
        raise _unknown(path, "a label map of TensorFlow (pbtxt)")
    if suffix in (".csv", ".tsv") or (lines and _columns(_cells(lines)[0])):
        return _of_table(_cells(lines), path)
    if lines and all(map(CVAT.fullmatch, lines)):
        return _of_cvat(lines)
    return of_lines(_without_numbers([line for line in lines if line != LABELME_IGNORED]))


def of_lines(lines: Sequence[str]) -> list[Entry]:
    """Entries of lines such as 'traffic light 250 170 30' or 'road'."""
    return [_of_line(line) for line in lines]


def _of_line(line: str) -> Entry:
    words = line.split()
    if len(words) > 3 and all(word.isdecimal() for word in words[-3:]):
        return Entry(" ".join(words[:-3]), _colour(words[-3:], line))
    if not words:
        raise ConfigError("data.classes has an empty name; each class needs one")
    return Entry(" ".join(words))


def _colour(words: Sequence[object], line: str) -> Colour:
    try:
        red, green, blue = (int(str(word).strip()) for word in words)
    except ValueError:
        red = green = blue = 256
    if not 0 <= min(red, green, blue) <= max(red, green, blue) <= 255:
        raise ConfigError(f"data.classes has the line {line!r}; colours are three numbers from 0 to 255")
    return red, green, blue


def _without_numbers(lines: list[str]) -> list[str]:
    """The lines without their numbers, if they are numbered from 0 on: '0: road', '1 car'."""
    found = [NUMBERED.fullmatch(line) for line in lines]
    if len(lines) > 1 and all(match and int(match[1]) == i for i, match in enumerate(found)):
        return [match[2] for match in found]
    return lines


def _of_cvat(lines: Sequence[str]) -> list[Entry]:
    matches = [CVAT.fullmatch(line) for line in lines]
    return [
        Entry(match[1].strip(), _colour(match.groups()[1:], line) if match[2] else None)
        for match, line in zip(matches, lines, strict=True)
    ]


def _cells(lines: Sequence[str]) -> list[list[str]]:
    separator = max("\t;,", key=lines[0].count) if lines else ","
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]


def _columns(head: Sequence[str]) -> dict[str, int]:
    """{"name": 1, "value": 0, "r": …}: the columns that the head of a table names; {} if it is no head."""
    lower = [cell.lower() for cell in head]
    known = {"name": NAMES, "value": VALUES, **{words[0]: words for words in CHANNELS}}
    found = {
        key: lower.index(word) for key, words in known.items() for word in reversed(words) if word in lower
    }
    return found if "name" in found and len(found) > 1 else {}


def _of_table(rows: list[list[str]], path: str) -> list[Entry]:
    columns = _columns(rows[0]) if rows else {}
    if not columns and rows and len(rows[0]) == 1 and rows[0][0].lower() in NAMES:
        columns = {"name": 0}
    if not columns:
        raise ConfigError(
            f"data.classes={path} is CSV without a head that names its columns; allowed: one of "
            f"{', '.join(NAMES)}, with one of {', '.join(VALUES)} or with r, g, b"
        )
    entries = []
    for row in rows[1:]:
        if len(row) <= max(columns.values()):
            raise ConfigError(f"data.classes={path} has the row {','.join(row)!r}, which lacks columns")
        cells = {key: row[place] for key, place in columns.items()}
        colour = [cells[words[0]] for words in CHANNELS if words[0] in cells]
        value = _value(cells["value"], path) if "value" in cells else None
        line = ",".join(row)
        entries.append(Entry(cells["name"], _colour(colour, line) if len(colour) == 3 else None, value))
    return entries


def _value(text: object, path: str) -> int:
    if isinstance(text, bool) or not str(text).isdecimal() or int(str(text)) > 65535:
        raise ConfigError(f"data.classes={path} has the mask value {text!r}; allowed: 0 to 65535")
    return int(str(text))


def _of_yaml(text: str, path: str) -> list[Entry]:
    content = parse_yaml(text, Path(path))
    check_plain(content, Path(path))
    names = content.get("names", content.get("classes")) if isinstance(content, Mapping) else content
    entries = _of_names(names, path)
    if entries is None:
        raise _unknown(path, "YAML without names:")
    return entries


def _of_json(text: str, path: str) -> list[Entry]:
    try:
        content = parsed(text)
    except ValueError as error:
        raise DataError(f"data.classes={path} is not JSON ({error})") from error
    listed = content
    if isinstance(content, Mapping):
        keys = ("classes", "categories", "names", "labels")
        listed = next((content[key] for key in keys if key in content), content)
    entries = _of_names(listed, path)
    if entries is None:
        raise _unknown(path, "JSON without a list of classes or categories")
    return entries


def _of_names(names: object, path: str) -> list[Entry] | None:
    """Entries of a list of names, of {value: name}, of {name: value}, or of a list of mappings with name or
    title, and with id or color; None for anything else."""
    if isinstance(names, Mapping) and names:
        if all(type(value) is int and not str(name).isdecimal() for name, value in names.items()):
            # The name `ignore` is that of nnU-Net's value of unlabelled pixels, see data.ignore_value.
            found = {name: value for name, value in names.items() if name != NO_LABEL or value == IGNORE}
            return [Entry(str(name), None, _value(value, path)) for name, value in found.items()]
        if not all(str(key).isdecimal() and isinstance(name, str) for key, name in names.items()):
            return None
        return [Entry(name, None, _value(key, path)) for key, name in names.items()]
    if not isinstance(names, list) or not names:
        return None
    entries = []
    for one in names:
        name = one.get("name", one.get("title")) if isinstance(one, Mapping) else one
        if not isinstance(name, str):
            return None
        if not isinstance(one, Mapping):
            entries.append(Entry(name))
            continue
        colour = re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", str(one.get("color")))
        rgb = (int(colour[1], 16), int(colour[2], 16), int(colour[3], 16)) if colour else None
        # Tools that give colours number their classes for themselves.
        value = _value(one["id"], path) if rgb is None and "id" in one else None
        entries.append(Entry(name, rgb, value))
    return entries


def _unknown(path: str, kind: str) -> ConfigError:
    return ConfigError(f"data.classes={path} is {kind}; allowed: {ALLOWED}")
