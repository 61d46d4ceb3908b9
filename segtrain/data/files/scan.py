"""Which values occur in a set of masks."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple, Protocol

import numpy as np

from segtrain.data.files.labels import NUMBERS
from segtrain.data.files.per_file import per_file
from segtrain.data.files.reading import read_mask_and_palette, without_colour
from segtrain.errors import DataError
from segtrain.text import count, notice

FEW = 8  # masks in a sample, where reading all of them would take too long
THREADS = min(8, os.cpu_count() or 1)


class Values(NamedTuple):
    """What one mask holds: {value: number of pixels}, and the palette's colour of each of these values, {}
    for a file without palette."""

    pixels: dict[int, int]
    colours: dict[int, list[int]]


class MaskReader(Protocol):
    """How masks are read. kind: differs where their values are counted in another way."""

    kind: str

    def values_of(self, path: str) -> Values:
        """The values of a mask. DataError for RGB masks: without data.classes their colours have no
        classes."""


def mask_values(
    paths: list[str],
    reader: MaskReader,
    may_fail: Collection[str] = frozenset(),
    same_colours: bool = False,
) -> dict[int, int]:
    """{mask value: number of pixels} over all masks, in ascending order. Unchanged files are taken from
    the cache.

    may_fail: masks that are left out, with a notice, if they cannot be read. same_colours: whether a value
    that has two colours in the palettes of two masks is a DataError.
    """
    first = threading.Lock()

    def values_or_error(path: str) -> Values | DataError:
        if first.acquire(blocking=False):  # never released, so that the notice comes once
            notice(f"reading {count(len(paths), 'mask')} once to find their classes …")
        try:
            return reader.values_of(path)
        except DataError as error:
            if path not in may_fail:
                raise
            return error

    read = per_file(f"masks{reader.kind}", paths, values_or_error, _parsed, THREADS)
    errors = [one for one in read if isinstance(one, DataError)]
    if errors:
        if len(errors) == len(paths):
            raise errors[0]
        unreadable = count(len(errors), "mask is", "masks are")
        notice(f"warning: {unreadable} left out where classes are looked for, the first: {errors[0]}")
    total: Counter[int] = Counter()
    for values in read:
        if not isinstance(values, DataError):
            total.update(values.pixels)
    if same_colours:
        _refuse_other_colours(paths, read)
    return dict(sorted(total.items()))


def _refuse_other_colours(paths: list[str], read: list[Values | DataError]) -> None:
    seen: dict[int, tuple[list[int], str]] = {}
    for path, values in zip(paths, read, strict=True):
        for value, colour in {} if isinstance(values, DataError) else values.colours.items():
            known, where = seen.setdefault(value, (colour, path))
            if known != colour:
                raise DataError(
                    f"index {value} is the colour {known} in the palette of {where}, and {colour} in that of "
                    f"{path}: some programs number the colours of each file anew; set data.classes to a file "
                    f"with a line 'name r g b' for each class, so that colours decide; if the indices are "
                    f"right, set data.label_map"
                )


def _parsed(plain: list) -> Values:
    return Values(*({int(value): one for value, one in part.items()} for part in plain))


def few_hold(paths: list[str], values: set[int], reader: MaskReader) -> bool:
    """Whether a sample of up to FEW masks, evenly spaced in the list, holds exactly the values `values`.
    Reading stops at the first other value."""
    seen: set[int] = set()
    for path in paths[:: -(-len(paths) // FEW)]:
        try:
            seen.update(reader.values_of(path).pixels)
        except DataError:  # reported when the mask is used
            return False
        if not seen <= values:
            return False
    return seen == values


def values_in(path: str, max_pixels: int) -> Values:
    """The values of a mask that is read whole, see `MaskReader`."""
    mask, palette = read_mask_and_palette(path, max_pixels)
    mask = without_colour(mask)
    if mask.ndim == 3:
        raise coloured(path)
    counts = np.bincount(mask.ravel())
    present = np.flatnonzero(counts)
    pixels = dict(zip(present.tolist(), counts[present].tolist(), strict=True))
    if palette is None:
        return Values(pixels, {})
    return Values(pixels, {value: palette[value].tolist() for value in pixels if value < len(palette)})


def coloured(path: str) -> DataError:
    """The error of a mask whose colours have no classes."""
    return DataError(
        f"mask {path} is coloured (RGB); set data.classes to a file with a line 'name r g b' for each "
        f"class{NUMBERS}"
    )
