"""Class names, colours and mask values: as a list, or from a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from segtrain.data.files.class_files import NO_LABEL, Entry, of_lines, read_class_file
from segtrain.errors import ConfigError
from segtrain.sample import IGNORE

UNLABELLED = ("ignore", "ignored", "unlabeled", "unlabelled", "void")
"""What tools call the pixels without label, where they list them among the classes."""


@dataclass(frozen=True)
class Named:
    """Class names, their colours (none, or one per class), the colours of unlabelled pixels, and the mask
    value of each class where it is not the index (else none)."""

    names: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()
    ignored: tuple[tuple[int, int, int], ...] = ()
    values: tuple[int, ...] = ()


def read_classes(classes: list[str] | str | None, root: str | None) -> Named:
    """The classes of the option data.classes. ConfigError for names, colours or values that are missing or
    given twice."""
    if classes is None:
        return Named()
    entries = of_lines(classes) if isinstance(classes, list) else read_class_file(_class_file(classes, root))
    ignored = [entry for entry in entries if _is_unlabelled(entry)]
    entries = [entry for entry in entries if entry not in ignored]
    if not 1 <= len(entries) <= 255:
        raise ConfigError(f"data.classes names {len(entries)} classes; allowed: 1 to 255")
    empty = next((entry for entry in entries if not entry.name), None)
    if empty is not None:
        raise ConfigError("data.classes has an empty name; each class needs one")
    given = [entry.value for entry in entries if entry.value is not None]
    if given:
        _refuse_partial("mask values", len(given), entries, lambda entry: entry.value is None)
        entries = sorted(entries, key=lambda entry: entry.value)
    colours = tuple(entry.colour for entry in entries if entry.colour)
    if colours:
        _refuse_partial("colours", len(colours), entries, lambda entry: entry.colour is None)
    names, none = tuple(entry.name for entry in entries), tuple(one.colour for one in ignored if one.colour)
    for kind, found in (("name", names), ("colour", (*colours, *none)), ("mask value", given)):
        double = next((one for one in found if found.count(one) > 1), None)
        if double is not None:
            raise ConfigError(f"data.classes has the {kind} {double!r} twice; each class needs its own")
    values = tuple(entry.value for entry in entries) if given else ()
    return Named(names, colours, none, () if values == tuple(range(len(values))) else values)


def _is_unlabelled(entry: Entry) -> bool:
    if entry.value is None:
        return entry.name == NO_LABEL and entry.colour is not None
    return entry.value == IGNORE and entry.name.lower() in UNLABELLED


def _refuse_partial(what: str, number: int, entries: Sequence[Entry], lacks) -> None:
    if number != len(entries):
        lacking = next(entry.name for entry in entries if lacks(entry))
        raise ConfigError(
            f"data.classes gives {what} to {number} of {len(entries)} classes, {lacking!r} has none; give "
            f"all or none"
        )


def _class_file(path: str, root: str | None) -> str:
    found = found_file(path, root)
    if not os.path.isfile(found):
        raise ConfigError(
            f"data.classes is {path!r}, which is not a file; give a list of names or a file with a line "
            f"'name r g b' for each"
        )
    return found


def found_file(path: str, root: str | None) -> str:
    """The file below root if there is one, else `path` from the current folder."""
    below = os.path.join(root or "", path)
    return below if os.path.isfile(below) else path
