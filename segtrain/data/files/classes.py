"""Class names and colours: as a list, or from a file."""

from __future__ import annotations

import os
from dataclasses import dataclass

from segtrain.errors import ConfigError, DataError

NO_LABEL = "ignore"  # name of the line of classes.txt that gives the colour of unlabelled pixels


@dataclass(frozen=True)
class Named:
    """Class names, their colours (none, or one per class), and the colours of unlabelled pixels."""

    names: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()
    ignored: tuple[tuple[int, int, int], ...] = ()


def read_classes(classes: list[str] | str | None, root: str | None) -> Named:
    if classes is None:
        return Named()
    lines = classes if isinstance(classes, list) else _class_lines(classes, root)
    parsed = [_class_line(line) for line in lines]
    ignored = tuple(colour for name, colour in parsed if name == NO_LABEL and colour)
    parsed = [(name, colour) for name, colour in parsed if not (name == NO_LABEL and colour)]
    names, colours = tuple(name for name, _ in parsed), tuple(colour for _, colour in parsed if colour)
    if colours and len(colours) != len(names):
        lacking = next(name for name, colour in parsed if not colour)
        raise ConfigError(
            f"data.classes gives colours to {len(colours)} of {len(names)} classes, {lacking!r} has none; "
            f"give all or none"
        )
    if not 1 <= len(names) <= 255:
        raise ConfigError(f"data.classes names {len(names)} classes; allowed: 1 to 255")
    for kind, found in (("name", names), ("colour", (*colours, *ignored))):
        double = next((one for one in found if found.count(one) > 1), None)
        if double is not None:
            raise ConfigError(f"data.classes has the {kind} {double!r} twice; each class needs its own")
    return Named(names, colours, ignored)


def found_file(path: str, root: str | None) -> str:
    """The file below root if there is one, else `path` from the current folder."""
    below = os.path.join(root or "", path)
    return below if os.path.isfile(below) else path


def _class_lines(path: str, root: str | None) -> list[str]:
    found = found_file(path, root)
    if not os.path.isfile(found):
        raise ConfigError(
            f"data.classes is {path!r}, which is not a file; give a list of names or a file with a line "
            f"'name r g b' for each"
        )
    try:
        with open(found, encoding="utf-8-sig") as file:
            # Not splitlines: a name may hold a character that it takes for the end of a line.
            lines = [line.strip() for line in file.read(1_000_000).split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.classes={found} cannot be read as UTF-8 text ({error})") from error
    return [line for line in lines if line and not line.startswith("#")]


def _class_line(line: str) -> tuple[str, tuple[int, int, int] | None]:
    """('traffic light', (250, 170, 30)) of 'traffic light 250 170 30'; the colour is None if the line has
    none."""
    words = line.split()
    if len(words) > 3 and all(word.isdecimal() for word in words[-3:]):
        colour = tuple(int(word) for word in words[-3:])
        if max(colour) > 255:
            raise ConfigError(f"data.classes has the line {line!r}; colours are three numbers from 0 to 255")
        return " ".join(words[:-3]), colour
    if not words:
        raise ConfigError("data.classes has an empty name; each class needs one")
    return " ".join(words), None
