"""Large TIFFs with their masks, cut into windows that are samples of their own.

The windows of a raster lie on a regular grid. The last ones of its rows and columns are moved inwards, so
that none is smaller; what earlier windows hold has no label in them, so each pixel is learned from and scored
once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from segtrain.data.files.channels import Channels
from segtrain.data.files.groups import groups_of
from segtrain.data.files.image_hashes import read_hashes
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairing import Files
from segtrain.data.files.pairs import Pair, Targets
from segtrain.data.files.per_file import file_state, per_file
from segtrain.data.files.raster import (
    Raster,
    RasterImage,
    check_same_place,
    mask_raster,
    raster,
    raster_image,
)
from segtrain.data.files.scan import Values, coloured
from segtrain.data.files.statistics import merged, moments
from segtrain.data.parts import Header, Source, Split, digest_of
from segtrain.errors import DataError
from segtrain.sample import IGNORE, Normalisation, Sample, Window
from segtrain.text import count, notice

MAX_COLOURS = 4096
"""Colours of a window that are looked at: a mask with more is refused when it is read."""


class Piece(NamedTuple):
    """A window of a raster. rows, columns: how many of its first ones earlier windows hold."""

    window: Window
    rows: int
    columns: int

    def once(self, array: np.ndarray) -> np.ndarray:
        """The part of a window's array, h×w×…, that no earlier window holds."""
        return array[self.rows :, self.columns :]


def pieces(height: int, width: int, side: int) -> Iterator[Piece]:
    """The windows of a raster, row by row."""
    for top, rows in _begins(height, side):
        for left, columns in _begins(width, side):
            yield Piece(Window(top, left, min(side, height), min(side, width)), rows, columns)


def _begins(length: int, side: int) -> list[tuple[int, int]]:
    """(beginning, pixels that the one before holds too) of each window along an axis."""
    whole = [(begin, 0) for begin in range(0, length - side + 1, side)] or [(0, 0)]
    end = len(whole) * side
    return whole if end >= length else [*whole, (length - side, end - (length - side))]


class Rasters:
    """The images of a folder, in windows. files: with the windows in place of the images that have a mask."""

    def __init__(
        self, files: Files, side: int, channels: Channels | None, lossy: bool, unread_in: Collection[str]
    ):
        """side: of the windows in pixels. lossy: whether masks of lossy compression are read. unread_in:
        splits whose rasters may have windows that cannot be read. DataError for a pair whose files do not fit
        together or cannot be read by windows."""
        self.channels, self._unread_in = channels, unread_in
        self.pieces: dict[str, Piece] = {}
        self._raster_of: dict[str, str] = {}  # names of windows and of their images
        self.images: dict[str, RasterImage] = {}  # by the path of the mask
        self.masks: dict[str, Raster] = {}
        self._of_mask: dict[str, list[str]] = {}
        self._side = side
        images = {name: path for name, path in files.images.items() if name not in files.mask_of}
        masks = files.masks_alone()
        for name, of_mask in _with_bar(files.mask_of.items(), "reading headers"):
            path, mask = files.images[name], files.masks[of_mask]
            self.images[mask] = image = raster_image(path, channels)
            self.masks[mask] = mask_raster(mask, lossy)
            check_same_place(path, mask, "mask")
            self._of_mask[mask] = []
            for piece in pieces(*image.size, side):
                window = f"{name}_r{piece.window.top}_c{piece.window.left}"
                self.pieces[window], self._raster_of[window] = piece, name
                self._of_mask[mask].append(window)
                images[window], masks[window] = path, mask
        self.files = Files(images, masks, {window: window for window in self.pieces})
        self.kind = f"-windows-{_states(*self.images.values())}"

    def groups(self, group: str | None, names: Iterable[str], root: str | None) -> dict[str, str]:
        """{name of a window: its group}: that of its image by the option data.group, or the image."""
        names = [name for name in names if name in self._raster_of]
        found = groups_of(group, dict.fromkeys(self._raster_of[name] for name in names), root)
        return {name: found.get(self._raster_of[name], self._raster_of[name]) for name in names}

    def values_of(self, path: str) -> Values:
        """The values of a mask, see `MaskReader`, without colours. Pixels without content, of mask or image,
        are left out."""
        total: Counter[int] = Counter()
        for counts in self._counts(path):
            total.update(counts)
        if _is_coloured(self.masks[path]):
            if any(tuple(one) != (one[0],) * 3 for one in map(_colour, total)):
                raise coloured(path)
            return Values({_colour(code)[0]: number for code, number in total.items()}, {})
        return Values(dict(total), {})

    def moments_of(self, path: str, channels: Channels) -> list:
        """The `moments` of those pixels of a file that have content."""
        image = RasterImage((raster(path),), channels, "")
        parts = []
        for piece in pieces(*image.size, self._side):
            values, valid = (piece.once(one) for one in image.read(piece.window, None))
            if valid.any():
                parts.append(moments(values[valid][None]))  # 1×N×K
        if not parts:
            raise DataError(f"{path} has no pixel with content; remove it")
        mean, std = merged(parts)
        return [sum(part[0] for part in parts), mean.tolist(), np.square(std).tolist()]

    def splits(
        self,
        pairs: Mapping[str, Sequence[Pair]],
        labels: Labels,
        targets: Targets | None,
        normalisation: Normalisation | None,
    ) -> dict[str, Split]:
        """The splits of these windows, without those that have no labelled pixel. DataError if a split has no
        others."""
        if len(pairs) == 1 and len(self.masks) == 1:
            notice(
                "all windows are of one raster, which stays in one split; to train on it, name some of "
                "them in data.train_list and others in data.val_list"
            )
        made = {}
        for split, of_split in pairs.items():
            empty = self._unlabelled({pair.mask for pair in of_split}, labels, split in self._unread_in)
            kept = [pair for pair in of_split if pair.name not in empty]
            if not kept:
                raise DataError(
                    f"none of the {count(len(of_split), 'window')} of split {split} has a labelled pixel, "
                    f"{of_split[0].mask} first; add rasters, or name others in data.{split}_list"
                )
            if len(kept) < len(of_split):
                left_out = f"{len(of_split) - len(kept)} of {count(len(of_split), 'window')}"
                notice(f"split {split}: {left_out} without a labelled pixel left out")
            made[split] = Windows(kept, self, labels, None if normalisation is None else normalisation.mean)
        return made

    def _unlabelled(self, masks: Iterable[str], labels: Labels, may_fail: bool) -> set[str]:
        """Names of the windows of these masks that have no labelled pixel. may_fail: whether masks need not
        be readable; then all of their windows are kept."""
        found = set()
        for mask in _with_bar(sorted(masks), "reading masks"):
            try:
                counts = self._counts(mask)
            except DataError:
                if not may_fail:
                    raise
                continue
            known = _labelled_values(set().union(*counts), self.masks[mask], labels)
            windows = zip(self._of_mask[mask], counts, strict=True)
            found |= {window for window, values in windows if known.isdisjoint(values)}
        return found

    def _counts(self, path: str) -> list[dict[int, int]]:
        """{value: pixels} of each window of a mask. Those of unchanged files come from the cache."""

        def counted(mask: str) -> list[dict[int, int]] | DataError:
            try:
                return [self._counts_in(mask, self.pieces[window]) for window in self._of_mask[mask]]
            except DataError as error:
                return error

        kind = f"windows-{self._side}-{_states(self.images[path])}"
        (found,) = per_file(kind, [path], counted, _parsed, threads=1)
        if isinstance(found, DataError):
            raise found
        return found

    def _counts_in(self, path: str, piece: Piece) -> dict[int, int]:
        """{value: pixels} of those pixels of a window that no earlier one holds and that have content in mask
        and image. The value of a colour is its code, see `_colour`."""
        values, _, valid = self.masks[path].labels(piece.window)
        there = piece.once(valid & self.images[path].valid(piece.window))
        values = piece.once(values)[there]  # N or N×3
        if values.ndim == 1:
            counts = np.bincount(values)
            return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
        codes, numbers = np.unique(values.astype(np.int64) @ CODE, return_counts=True)
        return dict(zip(codes[:MAX_COLOURS].tolist(), numbers[:MAX_COLOURS].tolist(), strict=True))


def _with_bar(items: Collection, what: str) -> Iterable:
    return tqdm(items, unit="file", desc=what, delay=1, leave=False, disable=None)


def _states(*images: RasterImage) -> str:
    """Differs if a file of the images does."""
    paths = [one.path for image in images for one in image.rasters]
    return digest_of([(path, file_state(path)) for path in paths])


CODE = np.array([1 << 32, 1 << 16, 1])


def _colour(code: int) -> tuple[int, int, int]:
    """RGB of 8 or 16 bits."""
    return code >> 32, code >> 16 & 65535, code & 65535


def _is_coloured(mask: Raster) -> bool:
    return mask.page.bands - len(mask.page.alpha) > 1


def _parsed(plain: list) -> list[dict[int, int]]:
    return [{int(value): int(pixels) for value, pixels in counts.items()} for counts in plain]


def _labelled_values(values: Iterable[int], mask: Raster, labels: Labels) -> set[int]:
    """Those of the counted values of a mask that are a class. All of them if some are none: that is reported
    when the mask is read."""
    values = sorted(values)
    stored = np.array([_colour(value) if _is_coloured(mask) else value for value in values])
    stored = stored[None].astype(np.uint8 if mask.page.dtype == np.uint8 else np.uint16)  # 1×N or 1×N×3
    try:
        target = labels.target(stored, mask.path, mask.page.palette) if values else np.zeros((1, 0))
    except DataError:
        return set(values)
    return {value for value, index in zip(values, target[0], strict=True) if index != IGNORE}


class Windows:
    """A `Split` whose samples are windows of rasters. Pixels without content, of the image or of the mask,
    have no label, and the mean in the image."""

    def __init__(self, pairs: Sequence[Pair], rasters: Rasters, labels: Labels, mean: Sequence[float] | None):
        """pairs: one a window. mean: of each channel, as in `Normalisation`; None: 0."""
        self.pairs, self.labels, self.mean = list(pairs), labels, mean
        self._pieces = [rasters.pieces[pair.name] for pair in pairs]
        self._images = {pair.mask: rasters.images[pair.mask] for pair in pairs}
        self._masks = {pair.mask: rasters.masks[pair.mask] for pair in pairs}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair, piece = self.pairs[index], self._pieces[index]
        image, valid = self._images[pair.mask].read(piece.window, self.mean)
        return Sample(image, self._target(index, valid), None, pair.name, pair.group)

    def target(self, index: int) -> np.ndarray:
        """H×W uint8 class indices, without reading the image's pixels."""
        return self._target(index, self._images[self.pairs[index].mask].valid(self._pieces[index].window))

    def _target(self, index: int, valid: np.ndarray) -> np.ndarray:
        """valid: h×w bool, where the image has content."""
        mask, piece = self._masks[self.pairs[index].mask], self._pieces[index]
        values, palette, there = mask.labels(piece.window)
        known = valid & there
        known[: piece.rows], known[:, : piece.columns] = False, False
        target = np.full(valid.shape, IGNORE, np.uint8)
        if known.any():
            target[known] = self.labels.target(values[known][None], mask.path, palette)[0]  # of 1×N or 1×N×3
        return target

    def names_and_groups(self) -> list[tuple[str, str]]:
        """(name, group) of each sample."""
        return [(pair.name, pair.group) for pair in self.pairs]

    def name(self, index: int) -> str:
        pair, window = self.pairs[index], self._pieces[index].window
        return f"{pair.image} (rows from {window.top}, columns from {window.left})"

    def size(self, index: int) -> tuple[int, int]:
        return self._pieces[index].window[2:]

    def headers(self, indices: Sequence[int]) -> list[Header]:
        """The header of each window; no file is read."""
        return [Header(*self.size(index), self._images[self.pairs[index].mask].dtype) for index in indices]

    def source(self, index: int) -> Source:
        pair = self.pairs[index]
        files = tuple(one.path for one in self._images[pair.mask].rasters)
        reading = digest_of(
            self._pieces[index],
            self.labels,
            self._images[pair.mask].channels,
            self.mean,
            pair.name,
            pair.group,
        )
        return Source((*files, pair.mask), f"window {reading}")

    def image_hashes(self) -> list[str]:
        """A hash of 8 letters for each sample, see `read_hashes`."""
        return read_hashes([pair.image for pair in self.pairs], [pair.name for pair in self.pairs])
