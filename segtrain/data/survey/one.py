"""What is wrong with one sample, or worth a look, and what it takes to compare it with others."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from segtrain.data.files.pairs import Pair, PairedFiles, on_its_side
from segtrain.data.files.reading import without_colour
from segtrain.data.parts import Split
from segtrain.data.survey.each import stored
from segtrain.errors import DataError
from segtrain.sample import IGNORE, Facts, Sample

BACKGROUND = "background"


class Fault(NamedTuple):
    """kind: key of `kinds.KINDS`. message: one line that names the file."""

    kind: str
    message: str


@dataclass(frozen=True)
class Look:
    """What one sample shows.

    faults: what is wrong with it or worth a look. pixels: pixel type and number of channels of its image;
    digest: hash of the image's decoded pixels; similarity: its `difference_hash`, if asked for; None where
    the image cannot be read. group: that of the sample. classes: the classes that occur in its target.
    """

    faults: tuple[Fault, ...]
    pixels: tuple[str, int] | None = None
    digest: bytes | None = None
    similarity: int | None = None
    group: str = ""
    classes: frozenset[int] = frozenset()


def look(split: Split, index: int, facts: Facts, classes: bool = True, similar: bool = False) -> Look:
    """Reads one sample. classes: whether its target holds class indices. similar: whether to hash what its
    image looks like."""
    try:
        sample = split[index]
    except DataError as error:
        return _look_at_files(*stored(split, index), error, similar)
    counts = None
    if classes and sample.target is not None:
        counts = np.bincount(sample.target.ravel(), minlength=256)
    return Look(
        () if counts is None else _about_target(sample, counts, facts, *stored(split, index)),
        **_of_image(sample.image, similar),
        group=sample.group,
        classes=frozenset() if counts is None else frozenset(np.flatnonzero(counts).tolist()) - {IGNORE},
    )


def difference_hash(image: np.ndarray) -> int:
    """64 bits that hardly change if an image is scaled or compressed: which of 8×9 areas are brighter than
    their left neighbour (dHash). image: H×W×K; of more than three channels, the first three count."""
    small = cv2.resize(np.ascontiguousarray(image[..., :3]), (9, 8), interpolation=cv2.INTER_AREA)  # 8×9×K
    grey = small.reshape(8, 9, -1).astype(np.float64).mean(axis=2)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


def _of_image(image: np.ndarray, similar: bool) -> dict:
    digest = hashlib.blake2b(f"{image.shape} {image.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image))
    return {
        "pixels": (image.dtype.name, image.shape[-1]),
        "digest": digest.digest(),
        "similarity": difference_hash(image) if similar else None,
    }


def _about_target(
    sample: Sample, counts: np.ndarray, facts: Facts, split: Split, index: int
) -> tuple[Fault, ...]:
    """What is striking in a target that can be read. counts: pixels of each of its 256 values."""
    values = set(np.flatnonzero(counts).tolist())
    name = split.name(index)
    if facts.num_classes > 2 and values == {0, IGNORE} and _is_grey_index_mask(split, index):
        share = 100 * counts[IGNORE] / counts.sum()
        return (
            Fault(
                "zero_255",
                f"mask {split.pairs[index].mask} holds only 0 and 255 (255: {share:.0f} %), with "
                f"{facts.num_classes} classes",
            ),
        )
    if values <= {IGNORE}:
        return (Fault("unlabelled", f"{name} has no pixel with a label"),)
    if facts.num_classes > 1 and facts.classes[0] == BACKGROUND and values <= {0, IGNORE}:
        return (Fault("background", f"{name} holds nothing but background"),)
    return ()


def _is_grey_index_mask(split: Split, index: int) -> bool:
    """Whether mask values are class indices and the file has no palette: there, 0 and 255 alone rather are
    two classes than one class and unlabelled pixels. (The palette masks of Pascal VOC mark both by a
    colour.)"""
    return read_by_labels(split) and _by_index(split) and split.mask(index)[1] is None


def read_by_labels(split: Split) -> bool:
    """Whether the samples are pairs of image and mask files whose targets depend on the masks and on the
    labels alone."""
    return (
        isinstance(split, PairedFiles) and split.targets is None and type(split).target is PairedFiles.target
    )


def _by_index(split: PairedFiles) -> bool:
    labels = split.labels
    return not (labels.label_map or labels.colours or labels.fixed) and labels.ignore_index == IGNORE


# --- samples that cannot be used


def _look_at_files(split: Split, index: int, error: DataError, similar: bool) -> Look:
    """The look at a sample that `error` was raised for: all faults of its files, not only the first."""
    unknown = Fault("unreadable", str(error))
    while not read_by_labels(split) and hasattr(
        split, "split"
    ):  # a split that changes the samples of another
        split, index = stored(split.split, index)
    if not read_by_labels(split):
        return Look((unknown,))
    pair = split.pairs[index]
    image, faults = None, []
    try:
        image = split.image(index)
    except DataError as wrong:
        faults.append(Fault("unreadable", str(wrong)))
    size, in_mask = _mask(split, index)
    if in_mask is not None and image is not None and _interchanged(split, pair):
        message = f"{pair.image} could be a mask, and {pair.mask} could not: {in_mask.message}"
        in_mask = Fault("swapped", message)
    faults += [] if in_mask is None else [in_mask]
    if size is not None and image is not None and size != image.shape[:2]:
        height, width = image.shape[:2]
        faults.append(
            Fault(
                "size",
                f"image {pair.image} is {height}x{width} and its mask {pair.mask} is {size[0]}x{size[1]} "
                f"(height x width){on_its_side(image.shape[:2], size)}",
            )
        )
    seen = {} if image is None else _of_image(image, similar)
    return Look(tuple(faults) or (unknown,), **seen, group=pair.group)


def _mask(split: PairedFiles, index: int) -> tuple[tuple[int, int] | None, Fault | None]:
    """(height, width) of a mask, None if it cannot be read, and what is wrong with it."""
    try:
        mask, palette = split.mask(index)
    except DataError as error:
        return None, Fault("unreadable", str(error))
    try:
        split.labels.target(mask, split.pairs[index].mask, palette)
    except DataError as error:
        return mask.shape[:2], Fault(_kind_of_values(split, mask), str(error))
    return mask.shape[:2], None


def _kind_of_values(split: PairedFiles, mask: np.ndarray) -> str:
    """The kind of fault of a mask that holds what no class has."""
    if without_colour(mask).ndim == 3:
        return "value" if split.labels.colours else "coloured"
    if _by_index(split):
        num = split.labels.num_classes
        if set(np.unique(mask).tolist()) - {*range(num), IGNORE} == {num}:
            return "off_by_one"
    return "value"


def _interchanged(split: PairedFiles, pair: Pair) -> bool:
    """Whether a pair whose mask has been refused makes a sample of several classes if its image is read as
    the mask and its mask as the image."""
    pairs = [pair._replace(image=pair.mask, mask=pair.image, instances=None)]
    exchanged = PairedFiles(pairs, split.labels, split.max_pixels, channels=split.channels)
    with contextlib.suppress(DataError):
        return len(np.unique(exchanged[0].target)) > 1
    return False
