"""Images of K channels: the bands or pages of a TIFF, an .npy array, or a file for each channel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segtrain.data.files import arrays, bands, tiff
from segtrain.data.files.per_file import per_file
from segtrain.data.files.reading import (
    MAX_PIXELS,
    ON_ITS_SIDE,
    SUFFIXES,
    check_pixels,
    decoder,
    num_bands,
    opened,
    oriented_header,
    read_all_bands,
    turned,
)
from segtrain.data.parts import Header
from segtrain.errors import ConfigError, DataError
from segtrain.text import count

ARRAY_SUFFIXES = (*SUFFIXES, ".npy")
THREADS = 16
EXACT = 1 << 24  # up to which float32 holds every integer


@dataclass(frozen=True)
class Channels:
    """Where the channels of an image come from. Without `bands` and `suffixes`, an image is a file of
    `number` bands.

    bands: numbers of the bands of a file that are read, from 1. suffixes: ends of the names of the files of
    an image, each of one band; the image is known by the first.
    """

    number: int
    bands: tuple[int, ...] = ()
    suffixes: tuple[str, ...] = ()

    @staticmethod
    def of(given: int | Sequence[int] | Sequence[str] | None) -> Channels | None:
        """Of the option data.channels; None for images of three channels, read as RGB."""
        if given is None:
            return None
        if isinstance(given, int):
            return Channels(given)
        if not given or len(set(given)) < len(given):
            raise ConfigError(f"data.channels is {list(given)}; allowed: band numbers or suffixes, each once")
        named = isinstance(given[0], str)
        return Channels(len(given), () if named else tuple(given), tuple(given) if named else ())

    def by_name(self, found: dict[str, str]) -> dict[str, str]:
        """{name: path of the first file} of the images among files by name. DataError if a file lacks."""
        if not self.suffixes:
            return found
        first = self.suffixes[0]
        images = {name.removesuffix(first): path for name, path in found.items() if name.endswith(first)}
        for name in images:
            lacking = next((end for end in self.suffixes if name + end not in found), None)
            if lacking is not None:
                raise DataError(
                    f"{images[name]} has no file {os.path.basename(name)}{lacking} beside it, and "
                    f"data.channels is "
                    f"[{','.join(self.suffixes)}]; add it, or correct data.channels"
                )
        return images

    def files(self, path: str) -> list[str]:
        """The files of an image that is known by `path`."""
        stem, suffix = os.path.splitext(path)
        if not self.suffixes:
            return [path]
        stem = stem.removesuffix(self.suffixes[0])
        wanted = [stem + end for end in self.suffixes]
        return [one + suffix if os.path.exists(one + suffix) else _any_suffix(one, suffix) for one in wanted]

    def read(self, path: str, max_pixels: int = MAX_PIXELS, limit: str = "data.max_pixels") -> np.ndarray:
        """H×W×K uint8, uint16 or float32, EXIF orientation applied. Values of other types become float32;
        NaN and infinite ones are a DataError."""
        parts = [self._of_file(file, max_pixels, limit) for file in self.files(path)]
        shapes = {(part.shape[:2], part.dtype) for part in parts}
        if len(shapes) > 1:
            raise _unequal(path, [(*part.shape[:2], part.dtype.name) for part in parts])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _of_file(self, path: str, max_pixels: int, limit: str) -> np.ndarray:
        self._checked(path, _layout(path, self._wanted), max_pixels, limit)
        values = _values(path, self._wanted)
        if self.bands:
            values = values[..., [band - 1 for band in self.bands]]
        return as_pixels(values, path)

    def headers(self, paths: Sequence[str]) -> list[Header | DataError]:
        """The header of each image, or why it cannot be read."""
        files = [self.files(path) for path in paths]
        kind = f"channels-{self._wanted or 0}"
        each = iter(
            per_file(
                kind, [file for image in files for file in image], self._layout_or_error, _parsed, THREADS
            )
        )
        return [
            self._joined(path, image, [next(each) for _ in image])
            for path, image in zip(paths, files, strict=True)
        ]

    def header(self, path: str) -> Header:
        """The header of an image. DataError if it cannot be read."""
        files = self.files(path)
        found = self._joined(path, files, [self._layout_or_error(file) for file in files])
        if isinstance(found, DataError):
            raise found
        return found

    def _joined(self, path: str, files: list[str], layouts: list) -> Header | DataError:
        try:
            for file, layout in zip(files, layouts, strict=True):
                if isinstance(layout, DataError):
                    return layout
                self._checked(file, layout)
        except DataError as error:
            return error
        if len({layout[:3] for layout in layouts}) > 1:
            return _unequal(path, [layout[:3] for layout in layouts])
        return Header(*layouts[0][:3])

    @property
    def _wanted(self) -> int | None:
        """How many bands a file is to have; None if only some are read."""
        return None if self.bands else 1 if self.suffixes else self.number

    def _layout_or_error(self, path: str) -> tuple[int, int, str, int] | DataError:
        try:
            return _layout(path, self._wanted)
        except DataError as error:
            return error

    def _checked(
        self, path: str, layout: tuple[int, int, str, int], max_pixels: int | None = None, limit: str = ""
    ) -> None:
        height, width, _, there = layout
        if max_pixels is not None:
            check_pixels(path, height, width, max_pixels, limit)
        if self._wanted not in (None, there) or max(self.bands, default=0) > there:
            given = self.suffixes or self.bands
            shown = f"[{','.join(map(str, given))}]" if given else str(self.number)
            raise DataError(
                f"{path} has {count(there, 'band')}, and data.channels={shown} needs "
                f"{'one' if self._wanted == 1 else self._wanted or max(self.bands)}; allowed: as many in "
                f"every file"
            )


def suffixes_of(channels: Channels | None) -> tuple[str, ...]:
    """The suffixes of files that may be images."""
    return SUFFIXES if channels is None else ARRAY_SUFFIXES


def _any_suffix(stem: str, suffix: str) -> str:
    """The path of an image of another file type than its first file has; that type's where there is none."""
    return next((stem + one for one in ARRAY_SUFFIXES if os.path.exists(stem + one)), stem + suffix)


def _unequal(path: str, layouts: list[tuple[int, int, str]]) -> DataError:
    shown = ", ".join(f"{height}x{width} {dtype}" for height, width, dtype in layouts)
    return DataError(
        f"the channels of {path} are {shown}; they must be of one size and type; correct the files"
    )


def _parsed(plain: list) -> tuple[int, int, str, int]:
    height, width, dtype, number = plain
    if not (type(height) is type(width) is type(number) is int and min(height, width, number) > 0):
        raise ValueError("not a layout")
    return height, width, str(dtype), number


def _layout(path: str, wanted: int | None) -> tuple[int, int, str, int]:
    """Height and width (orientation applied), pixel type and number of bands, from the header."""
    with opened(path) as file:
        if arrays.is_npy(file):
            shape, dtype, _ = arrays.npy_layout(file, path)
            axis = arrays.channel_axis(shape, wanted)
            size = shape if axis is None else shape[:2] if axis == 2 else shape[1:]
            kept = {"bool": "uint8", "uint8": "uint8", "uint16": "uint16"}.get(dtype.name, "float32")
            return (*size, kept, 1 if axis is None else shape[axis])
        if tiff.is_tiff(file):
            pages = tiff.pages(file, path)
            first, number = pages[0], sum(page.bands for page in pages)
            turn = first.orientation in ON_ITS_SIDE
            size = (first.width, first.height) if turn else (first.height, first.width)
            return (*size, bands.dtype_of(first), number)
        with decoder(file, path, None) as image:
            return (*oriented_header(image, file), num_bands(image, file))


def _values(path: str, wanted: int | None) -> np.ndarray:
    """H×W×N, all bands of a file."""
    with opened(path) as file:
        if arrays.is_npy(file):
            values = arrays.read_npy(file, path)
            axis = arrays.channel_axis(values.shape, wanted)
            return values[..., None] if axis is None else np.ascontiguousarray(np.moveaxis(values, axis, 2))
        if tiff.is_tiff(file):
            pages = tiff.pages(file, path)
            return turned(bands.channels_of(file, pages, path), pages[0].orientation)
        with decoder(file, path, None) as image:
            return read_all_bands(image, file)


def as_pixels(values: np.ndarray, path: str) -> np.ndarray:
    """Values of any type as uint8, uint16 or float32. DataError for NaN, infinite and large ones."""
    if values.dtype.name in ("uint8", "uint16"):
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind == "f":
        wrong = int((~np.isfinite(values)).sum())
        if wrong:
            raise DataError(
                f"{path} holds {count(wrong, 'value')} that are NaN or infinite; allowed: numbers; fill "
                f"them, e.g. by "
                f"gdal_fillnodata, or by the value of the surroundings"
            )
    elif max(abs(int(values.min())), abs(int(values.max()))) > EXACT:
        raise DataError(
            f"{path} holds integers from {values.min()} to {values.max()}; allowed: up to {EXACT}, which "
            f"float32 "
            f"holds exactly; scale them"
        )
    return values.astype(np.float32)
