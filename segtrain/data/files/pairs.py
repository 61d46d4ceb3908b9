"""Image files and their masks, paired by name, as a split."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from segtrain.data.files.headers import read_headers
from segtrain.data.files.labels import Labels
from segtrain.data.files.listing import list_images
from segtrain.data.files.marks import read_marks
from segtrain.data.files.reading import (
    MAX_PIXELS,
    SUFFIXES,
    check_depth,
    check_pixels,
    read_header,
    read_image,
    read_mask,
    read_mask_and_palette,
)
from segtrain.data.parts import Header
from segtrain.errors import DataError
from segtrain.sample import Sample


class Pair(NamedTuple):
    """image, mask: paths. name: the image's path relative to the image folder, without suffix. group:
    what the image was taken from, e.g. a video. instances: path of the file of object numbers, if there is
    one."""

    image: str
    mask: str
    name: str
    group: str = ""
    instances: str | None = None


class PairedFiles:
    """A `Split` whose samples are read from pairs of files.

    objects: H×W stored values of an instance file -> H×W uint16 object numbers, 0 where there is no object; a
    function of a module, because splits are sent to worker processes.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        labels: Labels,
        max_pixels: int = MAX_PIXELS,
        objects: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self.pairs = list(pairs)
        self.labels = labels
        self.max_pixels = max_pixels
        self._objects = objects
        self._headers: dict[int, Header | DataError] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image = read_image(pair.image, self.max_pixels)
        target = self.target(index)
        _check_same_size(pair, image.shape[:2], target.shape)
        return Sample(image, target, self._instances(pair, target.shape), pair.name, pair.group)

    def _instances(self, pair: Pair, size: tuple[int, int]) -> np.ndarray | None:
        if pair.instances is None or self._objects is None:
            return None
        stored = read_mask(pair.instances, self.max_pixels)
        _check_same_size(pair._replace(mask=pair.instances), size, stored.shape[:2])
        return self._objects(stored)

    def target(self, index: int) -> np.ndarray:
        """H×W uint8 class indices, without reading the image."""
        path = self.pairs[index].mask
        mask, palette = read_mask_and_palette(path, self.max_pixels)
        return self.labels.target(mask, path, palette)

    def name(self, index: int) -> str:
        return self.pairs[index].image

    def size(self, index: int) -> tuple[int, int]:
        return read_header(self.pairs[index].image)[:2]

    def headers(self, indices: Sequence[int]) -> list[Header | DataError]:
        """The header of each image, or a DataError if the image or its mask cannot be used: unreadable,
        too large, or of different sizes. Every header is read once."""
        missing = [index for index in indices if index not in self._headers]
        if missing:
            read = read_headers([path for index in missing for path in self.pairs[index][:2]])
            for index, image, mask in zip(missing, read[::2], read[1::2], strict=True):
                self._headers[index] = self._checked(self.pairs[index], image, mask)
        return [self._headers[index] for index in indices]

    def marks(self) -> list[str]:
        """A mark for each sample, from the name and the content of its image."""
        return read_marks([pair.image for pair in self.pairs], [pair.name for pair in self.pairs])

    def _checked(self, pair: Pair, image: Header | DataError, mask: Header | DataError) -> Header | DataError:
        """The image's header; the DataError if one of the two cannot be used."""
        for header in (image, mask):
            if isinstance(header, DataError):
                return header
        try:
            check_pixels(pair.image, image.height, image.width, self.max_pixels)
            check_depth(image.dtype, pair.image)
            _check_same_size(pair, image[:2], mask[:2])
        except DataError as error:
            return error
        return image


def _check_same_size(pair: Pair, image: tuple[int, int], mask: tuple[int, int]) -> None:
    if image != mask:
        raise DataError(
            f"image {pair.image} is {image[0]}x{image[1]} and its mask {pair.mask} is {mask[0]}x{mask[1]} "
            f"(height x width); they must be equal; correct or remove the pair"
        )


def find_images(folder: str, root: str, suffixes: Collection[str] = SUFFIXES) -> dict[str, str]:
    """Paths of all image files below `folder` (those with one of `suffixes`), keyed by relative path without
    suffix, in sorted order.

    DataError if two files have the same key, or if a link leads out of `root`.
    """
    found: dict[str, str] = {}
    for file in list_images(folder, suffixes=suffixes).files:
        key, path = os.path.splitext(file)[0], os.path.join(folder, file)
        if key in found:
            raise DataError(
                f"{found[key]} and {path} share one name; pairs go by name without suffix; rename or remove "
                f"one"
            )
        check_inside(path, root)
        found[key] = path
    return dict(sorted(found.items()))


def composed(name: str) -> str:
    """The name with each accented letter as one character (Unicode's NFC). Systems differ: what macOS has
    unpacked or copied may hold a letter and an accent where the same name elsewhere holds one character."""
    return unicodedata.normalize("NFC", name)


def same_names(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """{name: the same one among `others`}, for those that have one, in the order of `names`. A name that is
    equal only once both are `composed` counts where no other is equal as it is."""
    names, free = list(names), dict.fromkeys(others)
    equal = {name for name in names if name in free}
    by_composed = {composed(other): other for other in free if other not in equal}
    found = {name: name if name in equal else by_composed.get(composed(name)) for name in names}
    return {name: other for name, other in found.items() if other is not None}


def check_inside(path: str, root: str) -> None:
    """DataError unless `path`, with symbolic links resolved, lies below `root`."""
    real, base = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([real, base]) != base:
        raise DataError(
            f"{path} leads to {real}, outside of {base}; copy it there, or set data.root to a folder that "
            f"holds both"
        )


def prefix_and_number(name: str) -> tuple[str, int | None]:
    """('drive/0016E5_', 7959) for 'drive/0016E5_07959': the last number in a name, and the text before
    it."""
    found = re.fullmatch(r"(.*?)(\d+)\D*", name, flags=re.DOTALL)
    return (found[1], int(found[2])) if found else (name, None)
