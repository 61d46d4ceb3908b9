"""Mask values or colours to class indices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from segtrain.data.files.reading import without_colour
from segtrain.errors import DataError
from segtrain.sample import IGNORE

UNKNOWN = -1
AGAIN = "unpack the original file again"
INDICES_ALONE = "correct the mask or the colours, or set data.label_map to go by the indices alone"
MANY = 30  # more unknown colours are numbers of objects, or smoothed edges
NUMBERS = "; colours that number objects (COCO's panoptic PNGs) are read by data=coco data.labels=panoptic"


@dataclass(frozen=True)
class Labels:
    """How the values of a mask become class indices.

    num_classes: C. ignore_index: mask value of unlabelled pixels. label_map: mask value -> class index or
    IGNORE; takes precedence over everything else. colours: the RGB colour of each class, for RGB masks and
    palettes; () if classes have none. ignored_colours: colours of unlabelled pixels. fixed: whether the
    values are those of a published data set, which has no option data.label_map. nearest: whether each pixel
    takes the nearest value of label_map, or the nearest colour, because lossy compression has changed it.
    """

    num_classes: int
    ignore_index: int = IGNORE
    label_map: dict[int, int] = field(default_factory=dict)
    colours: tuple[tuple[int, int, int], ...] = ()
    ignored_colours: tuple[tuple[int, int, int], ...] = ()
    fixed: bool = False
    nearest: bool = False

    def __post_init__(self):
        object.__setattr__(self, "_table", self._made_table())

    def _made_table(self) -> np.ndarray:
        """int32[65536]: class index of each mask value, UNKNOWN for values of no class."""
        table = np.full(65536, UNKNOWN, np.int32)
        if self.label_map:
            table[self.ignore_index] = IGNORE
            for value, index in self.label_map.items():
                table[value] = index
            if self.nearest:
                known = np.flatnonzero(table != UNKNOWN)
                table = table[known[np.abs(np.arange(65536)[:, None] - known).argmin(1)]]
        else:
            table[: self.num_classes] = np.arange(self.num_classes)
            table[self.ignore_index] = IGNORE
        return table

    def target(self, mask: np.ndarray, path: str, palette: np.ndarray | None = None) -> np.ndarray:
        """Target of a mask: H×W uint8 class indices, IGNORE where unlabelled.

        mask: H×W or H×W×3 (RGB), uint8 or uint16, as `read_mask` returns it. palette: N×3 uint8, the RGB
        colour of each mask value; None if the file has no palette. With a palette, with class colours and
        without label_map, colours decide, see `_by_palette`. DataError for values or colours that belong to
        no class: it lists them with their pixel counts and says what is allowed.
        """
        if not self.colours or self.fixed:
            mask = _grey_of(mask) if self.nearest and self.label_map else without_colour(mask)
        if mask.ndim == 3:
            return self._from_colours(mask, path)
        if palette is not None and self.colours and not self.label_map:
            by_colour = self._by_palette(mask, palette, path)
            if by_colour is not None:
                return cv2.LUT(mask, by_colour)
        if mask.dtype == np.uint8 and not self.label_map and self.ignore_index == IGNORE:
            if cv2.inRange(mask, self.num_classes, IGNORE - 1).any():
                raise self._outside(mask, path)
            return mask  # the values are the class indices
        if mask.dtype == np.uint8:
            table = self._table[:256]
            # Values of no class are looked up as `spare`, so that one pass finds them and the classes.
            spare = self.num_classes if self.num_classes < IGNORE else None
            found = cv2.LUT(mask, np.where(table == UNKNOWN, spare or 0, table).astype(np.uint8))
            if cv2.inRange(found, spare, spare).any() if spare else (table[mask] == UNKNOWN).any():
                raise self._outside(mask, path)
            return found
        found = self._table[mask]
        if (found == UNKNOWN).any():
            raise self._outside(mask, path)
        return found.astype(np.uint8)

    def _outside(self, mask: np.ndarray, path: str) -> DataError:
        values, counts = np.unique(mask[self._table[mask] == UNKNOWN], return_counts=True)
        listed = ", ".join(
            f"{value} ({count} px)" for value, count in list(zip(values, counts, strict=True))[:8]
        )
        more = f" and {len(values) - 8} more" if len(values) > 8 else ""
        keys = _ranges(sorted(self.label_map))
        if not self.label_map:
            keys = f"0..{self.num_classes - 1}"
        elif not self.fixed:
            keys = f"the keys of data.label_map ({keys})"
        way_out = f"correct the mask, or {AGAIN}" if self.fixed else "correct the mask or set data.label_map"
        return DataError(
            f"mask {path} holds {listed}{more}; allowed: {keys} and {self.ignore_index} (no label); {way_out}"
        )

    def _by_palette(self, mask: np.ndarray, palette: np.ndarray, path: str) -> np.ndarray | None:
        """uint8[256]: class index of each mask value, looked up by its palette colour. None (indices
        decide) if no value in use has the colour of a class.

        DataError if only some values in use have the colour of a class: the palette then is that of the
        classes, and read as indices the remaining values would silently become wrong classes.
        """
        codes, by_colour = self._palette_classes(palette)
        used = np.flatnonzero(cv2.calcHist([mask], [0], None, [256], [0, 256]))
        unnamed = used[by_colour[used] == UNKNOWN]
        if not len(unnamed):
            return by_colour.astype(np.uint8)
        # Black at the index of its class and the ignore value are no evidence for colours: most palettes
        # begin with black, and unlabelled pixels need no colour.
        no_evidence = (by_colour == self._table[:256]) & ((codes == 0) | (self._table[:256] == IGNORE))
        named = used[(by_colour[used] != UNKNOWN) & ~no_evidence[used]]
        if len(named):
            raise self._half_named(codes, int(unnamed[0]), int(named[0]), by_colour, path)
        return None

    def _palette_classes(self, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two int32[256] by mask value: the code of its palette colour (-1 if the palette has no such
        entry), and the class of that colour (UNKNOWN if no class has it)."""
        known = {_code(colour): index for index, colour in enumerate(self.colours)}
        known |= {_code(colour): IGNORE for colour in self.ignored_colours}
        codes = np.full(256, -1, np.int32)
        codes[: len(palette)] = palette.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
        classes = np.array([known.get(code, UNKNOWN) for code in codes.tolist()], np.int32)
        none = self.ignore_index
        # Writers pad palettes by repeating a colour; at the ignore value a repeated colour is no class.
        if none < 256 and (classes[none] == UNKNOWN or codes[none] in codes[:none]):
            classes[none] = IGNORE
        return codes, classes

    def _half_named(
        self, codes: np.ndarray, unnamed: int, named: int, by_colour: np.ndarray, path: str
    ) -> DataError:
        found = f"the colour {_in_words(codes[unnamed])}" if codes[unnamed] >= 0 else "no colour"
        wanted = (
            f", class {unnamed} has {_in_words(_code(self.colours[unnamed]))}"
            if unnamed < self.num_classes
            else ""
        )
        meant = "no label" if by_colour[named] == IGNORE else f"class {by_colour[named]}"
        return DataError(
            f"mask {path} has a palette in which only some indices have colours of data.classes: index "
            f"{unnamed} has {found}{wanted}; "
            f"index {named} has {_in_words(codes[named])}, which is {meant}; allowed: all indices in use "
            f"or none; {AGAIN if self.fixed else INDICES_ALONE}"
        )

    def _from_colours(self, mask: np.ndarray, path: str) -> np.ndarray:
        if not self.colours:
            if self.fixed:
                raise DataError(
                    f"mask {path} is coloured (RGB), and the masks of this data set hold class indices; "
                    f"{AGAIN}"
                )
            raise DataError(
                f"mask {path} is coloured (RGB), and the classes have no colours; save class indices, "
                f"or set data.classes to a file with a line 'name r g b' for each class{NUMBERS}"
            )
        if mask.dtype == np.uint16:
            mask = _of_8_bits(mask, path)
        codes = mask.astype(np.int32) @ np.array([65536, 256, 1], np.int32)  # H×W×3 -> H×W
        if self.nearest:
            mask = _nearest_colours(mask, (*self.colours, *self.ignored_colours))
            codes = mask.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
        known = np.array([_code(c) for c in (*self.colours, *self.ignored_colours)], np.int32)
        indices = np.array([*range(len(self.colours)), *[IGNORE] * len(self.ignored_colours)], np.uint8)
        order = np.argsort(known)
        place = np.minimum(np.searchsorted(known[order], codes), len(known) - 1)
        wrong = known[order][place] != codes
        if wrong.any():
            raise _unknown_colours(
                codes[wrong], path, AGAIN if self.fixed else "add them to data.classes or correct the mask"
            )
        return indices[order][place]


def _of_8_bits(mask: np.ndarray, path: str) -> np.ndarray:
    """The 8-bit colours, as those of classes are, of which 16-bit ones were made: times 257 or times 256.
    DataError for others, such as 8-bit values that were stored as they are: all of them would be black."""
    high, low = mask >> 8, mask & 255
    other = (low != 0) & (low != high)
    if other.any():
        raise DataError(
            f"mask {path} has 16-bit colours that are no 8-bit ones, such as {mask[other][0]} at "
            f"{np.count_nonzero(other.any(axis=2))} px; allowed: multiples of 257 or 256; save it with 8 bits"
        )
    return high


def _ranges(values: Sequence[int]) -> str:
    """'0, 7..9' of the ascending values 0, 7, 8, 9."""
    parts = []
    for _, several in itertools.groupby(enumerate(values), lambda pair: pair[1] - pair[0]):
        first, *others = (value for _, value in several)
        parts.append(f"{first}..{others[-1]}" if len(others) > 1 else ", ".join(map(str, (first, *others))))
    return ", ".join(parts)


def _grey_of(mask: np.ndarray) -> np.ndarray:
    """H×W: the middle of the three channels of a mask that was grey before lossy compression."""
    return mask if mask.ndim == 2 else np.median(mask, axis=2).astype(mask.dtype)


def _nearest_colours(mask: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """H×W×3: each pixel's nearest one of the colours, by squared distance; the first one of equally near
    ones."""
    best, nearest = (
        np.full(mask.shape[:2], np.iinfo(np.int32).max, np.int32),
        np.zeros(mask.shape[:2], np.intp),
    )
    for place, colour in enumerate(colours):
        distance = np.square(mask.astype(np.int32) - np.array(colour, np.int32)).sum(2)
        nearer = distance < best
        best[nearer], nearest[nearer] = distance[nearer], place
    return np.array(colours, np.uint8)[nearest]


def _code(colour: tuple[int, int, int]) -> int:
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]


def _in_words(code: int) -> str:
    return f"({code >> 16} {code >> 8 & 255} {code & 255})"


def _unknown_colours(codes: np.ndarray, path: str, way_out: str) -> DataError:
    values, counts = np.unique(codes, return_counts=True)
    first = np.argsort(-counts, kind="stable")[:5]
    listed = ", ".join(f"{_in_words(v)} at {n} px" for v, n in zip(values[first], counts[first], strict=True))
    more = f" and {len(values) - 5} more" if len(values) > 5 else ""
    return DataError(
        f"mask {path} holds colours that no class has: {listed}{more}; {way_out}"
        f"{NUMBERS if len(values) > MANY else ''}"
    )
