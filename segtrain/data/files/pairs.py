"""Image files and their masks, paired by name, as a split."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from segtrain.data.files.channels import Channels
from segtrain.data.files.headers import read_headers
from segtrain.data.files.image_hashes import read_hashes
from segtrain.data.files.labels import Labels
from segtrain.data.files.listing import list_images
from segtrain.data.files.reading import (
    MAX_PIXELS,
    check_depth,
    check_pixels,
    read_header,
    read_image,
    read_mask,
    read_mask_and_palette,
)
from segtrain.data.parts import Header, Source, digest_of
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


class Targets(Protocol):
    """Targets that are no mask files, each with a key. Their `repr` says how they are made."""

    def files(self, key: str) -> tuple[str, ...]:
        """The files that a target is read from."""

    def target(self, key: str) -> np.ndarray:
        """H×W uint8 class indices, IGNORE where unlabelled."""

    def headers(self, keys: Sequence[str]) -> list[Header | DataError]:
        """The size of each target, or why it cannot be read."""

    def where(self, key: str) -> str:
        """What messages call the target."""


class PairedFiles:
    """A `Split` whose samples are read from pairs of files.

    objects: H×W stored values of an instance file -> H×W uint16 object numbers, 0 where there is no object; a
    function of a module, because splits are sent to worker processes. channels: how images of other than
    three channels are read; None: as RGB.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        labels: Labels | None,
        max_pixels: int = MAX_PIXELS,
        objects: Callable[[np.ndarray], np.ndarray] | None = None,
        channels: Channels | None = None,
        targets: Targets | None = None,
    ):
        self.pairs = list(pairs)
        self.labels = labels
        self.max_pixels = max_pixels
        self.objects = objects
        self.channels = channels
        self.targets = targets
        self._headers: dict[int, Header | DataError] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image, target = self.image(index), self.target(index)
        check_same_size(self._shown(pair), image.shape[:2], target.shape)
        return Sample(image, target, self._instances(pair, target.shape), pair.name, pair.group)

    def _shown(self, pair: Pair) -> Pair:
        """The pair as messages name it."""
        return pair if self.targets is None else pair._replace(mask=self.targets.where(pair.mask))

    def _instances(self, pair: Pair, size: tuple[int, int]) -> np.ndarray | None:
        if pair.instances is None or self.objects is None:
            return None
        stored = read_mask(pair.instances, self.max_pixels)
        check_same_size(pair._replace(mask=pair.instances), size, stored.shape[:2])
        return self.objects(stored)

    def without_instances(self) -> PairedFiles:
        """The same samples; files of object numbers are not read."""
        twin = copy.copy(self)
        twin.objects = None
        twin.__dict__.pop("_reading", None)  # depends on `objects`
        return twin

    def image(self, index: int) -> np.ndarray:
        """H×W×K, without reading the mask."""
        read = read_image if self.channels is None else self.channels.read
        return read(self.pairs[index].image, self.max_pixels)

    def mask(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The stored values of the mask and its palette, as `read_mask_and_palette` returns them."""
        return read_mask_and_palette(self.pairs[index].mask, self.max_pixels, self.labels.nearest)

    def target(self, index: int) -> np.ndarray:
        """H×W uint8 class indices, without reading the image."""
        path = self.pairs[index].mask
        if self.targets is not None:
            return self.targets.target(path)
        mask, palette = self.mask(index)
        return self.labels.target(mask, path, palette)

    def names_and_groups(self) -> list[tuple[str, str]]:
        """(name, group) of each sample."""
        return [(pair.name, pair.group) for pair in self.pairs]

    def name(self, index: int) -> str:
        return self.pairs[index].image

    def size(self, index: int) -> tuple[int, int]:
        read = read_header if self.channels is None else self.channels.header
        return read(self.pairs[index].image)[:2]

    def source(self, index: int) -> Source:
        pair = self.pairs[index]
        images = (pair.image,) if self.channels is None else tuple(self.channels.files(pair.image))
        instances = () if self.objects is None or pair.instances is None else (pair.instances,)
        made_of = (pair.mask,) if self.targets is None else self.targets.files(pair.mask)
        place = "" if self.targets is None else repr(pair.mask)
        reading = f"{self._reading} {pair.name!r} {pair.group!r} {place}"
        return Source((*images, *made_of, *instances), reading)

    @functools.cached_property
    def _reading(self) -> str:
        objects = self.objects and (self.objects.__module__, self.objects.__qualname__)
        return digest_of(
            type(self).__name__, self.labels, self.channels, self.max_pixels, objects, self.targets
        )

    def headers(self, indices: Sequence[int]) -> list[Header | DataError]:
        """The header of each image, or a DataError if the image or its mask cannot be used: unreadable,
        too large, or of different sizes. Every header is read once."""
        missing = [index for index in indices if index not in self._headers]
        if missing:
            pairs = [self.pairs[index] for index in missing]
            images = [pair.image for pair in pairs]
            found = (read_headers if self.channels is None else self.channels.headers)(images)
            of_masks = (read_headers if self.targets is None else self.targets.headers)(
                [pair.mask for pair in pairs]
            )
            for index, image, mask in zip(missing, found, of_masks, strict=True):
                self._headers[index] = self._checked(self.pairs[index], image, mask)
        return [self._headers[index] for index in indices]

    def image_hashes(self) -> list[str]:
        """A hash of 8 letters for each sample, see `read_hashes`."""
        return read_hashes([pair.image for pair in self.pairs], [pair.name for pair in self.pairs])

    def _checked(self, pair: Pair, image: Header | DataError, mask: Header | DataError) -> Header | DataError:
        """The image's header; the DataError if one of the two cannot be used."""
        for header in (image, mask):
            if isinstance(header, DataError):
                return header
        try:
            check_pixels(pair.image, image.height, image.width, self.max_pixels)
            if self.channels is None:
                check_depth(image.dtype, pair.image)
            check_same_size(self._shown(pair), image[:2], mask[:2])
        except DataError as error:
            return error
        return image


def check_same_size(pair: Pair, image: tuple[int, int], mask: tuple[int, int]) -> None:
    if image != mask:
        raise DataError(
            f"image {pair.image} is {image[0]}x{image[1]} and its mask {pair.mask} is {mask[0]}x{mask[1]} "
            f"(height x width); they must be equal; correct or remove the pair"
        )


def find_images(folder: str, root: str) -> dict[str, str]:
    """Paths of all image files below `folder`, keyed by relative path without suffix, in sorted order.
    DataError as of `by_name`."""
    return by_name(((os.path.splitext(file)[0], file) for file in list_images(folder).files), folder, root)


def by_name(named: Iterable[tuple[str, str]], folder: str, root: str, advice: str = "") -> dict[str, str]:
    """{name: path} in sorted order. named: (name, path relative to folder) of each file. DataError if two
    files have the same name, or if a link leads out of `root`. advice: further ways out for the first."""
    found: dict[str, str] = {}
    for name, file in named:
        path = os.path.join(folder, file)
        if name in found:
            raise DataError(
                f"{found[name]} and {path} share one name; pairs go by name without suffix; rename or remove "
                f"one{advice}"
            )
        check_inside(path, root)
        found[name] = path
    return dict(sorted(found.items()))


def files_by_stem(folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """{name without suffix: path} of the files directly in `folder` that have one of the suffixes, in sorted
    order; {} if there is no such folder. The folder may be a link to another disk; a file must not lead out
    of it (DataError)."""
    found: dict[str, str] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in suffixes and not entry.name.startswith("."):
                if entry.is_symlink():
                    check_inside(entry.path, folder)
                found[stem] = entry.path
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
