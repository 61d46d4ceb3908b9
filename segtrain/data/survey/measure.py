"""What a split holds: pixels and images of each class, mean and standard deviation of the channels, sizes of
images and of objects."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segtrain.data.files.pairs import PairedFiles
from segtrain.data.files.per_file import CLOCK_S, per_file
from segtrain.data.files.statistics import merged, moments
from segtrain.data.parts import Split
from segtrain.data.survey.each import THREADS, of_each, stored
from segtrain.data.survey.one import read_by_labels
from segtrain.data.survey.stats import Frequency
from segtrain.errors import DataError
from segtrain.sample import Facts, Sample

VERSION = 1  # of the cached numbers
ObjectsOf = Callable[[Sample, Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Measures:
    """sizes: int64[N, 2], height and width of each image. pixels: int64[N, C], pixels of each class in each
    image. mean, std: of each channel over all pixels, on 0..1 (full scale, as for `Normalisation`).
    areas: for each class, int64[…], pixels of each of its objects."""

    sizes: np.ndarray
    pixels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    areas: tuple[np.ndarray, ...]

    @property
    def frequency(self) -> Frequency:
        """As `stats.frequency` counts it."""
        labelled = self.pixels.sum(axis=1, keepdims=True)
        return Frequency(self.pixels.sum(axis=0), np.where(self.pixels > 0, labelled, 0).sum(axis=0))

    @property
    def num_unlabelled(self) -> int:
        """Pixels without a label."""
        return int(self.sizes.prod(axis=1).sum() - self.pixels.sum())


def measure(split: Split, facts: Facts, objects_of: ObjectsOf) -> Measures:
    """The measures of a split, whose samples are all read. Those of unchanged files come from the cache.

    objects_of: (sample, thing classes) -> H×W object numbers, 0 where there is no object. DataError if a
    sample cannot be read.
    """
    places = [stored(split, index) for index in range(len(split))]
    found: dict[tuple[int, int], dict | DataError] = {}
    for source in {id(source): source for source, _ in places}.values():
        indices = sorted({index for other, index in places if other is source})
        read = functools.partial(_of_sample, facts=facts, objects_of=objects_of)
        found |= zip(
            ((id(source), index) for index in indices), _read(source, indices, read, facts), strict=True
        )
    plain = [found[id(source), index] for source, index in places]
    errors = [one for one in plain if isinstance(one, DataError)]
    if errors:
        more = f" ({len(errors)} such samples of {len(split)})" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}; segtrain data check lists all that is wrong")
    return _summed(plain, facts.num_classes)


def _summed(plain: Sequence[dict], num_classes: int) -> Measures:
    sizes = np.array([one["size"] for one in plain], np.int64)
    pixels = np.zeros((len(plain), num_classes), np.int64)
    areas: list[list[int]] = [[] for _ in range(num_classes)]
    for row, one in zip(pixels, plain, strict=True):
        for index, number in one["pixels"].items():
            row[int(index)] = number
        for index, of_class in one["areas"].items():
            areas[int(index)] += of_class
    mean, std = merged([one["moments"] for one in plain])
    return Measures(
        sizes,
        pixels,
        tuple(mean.tolist()),
        tuple(std.tolist()),
        tuple(np.array(one, np.int64) for one in areas),
    )


# --- one sample


def _of_sample(split: Split, index: int, facts: Facts, objects_of: ObjectsOf) -> dict:
    """The numbers of one sample, as JSON holds them."""
    sample = split[index]
    image, target = sample.image, sample.target
    counts = np.bincount(target.ravel(), minlength=256)
    counts[facts.ignore_index] = 0
    return {
        "size": list(image.shape[:2]),
        "moments": moments(image),
        "pixels": {str(value): int(counts[value]) for value in np.flatnonzero(counts)},
        "areas": _areas(target, objects_of(sample, facts.things), facts.ignore_index),
    }


def _areas(target: np.ndarray, objects: np.ndarray, ignore_index: int) -> dict[str, list[int]]:
    """{class: pixels of each of its objects}. The class of an object is the one that most of its labelled
    pixels have; an object without labelled pixels is left out."""
    inside = objects > 0
    numbers, place = np.unique(objects[inside], return_inverse=True)
    pixels = np.bincount(place.ravel() * 256 + target[inside], minlength=256 * len(numbers)).reshape(-1, 256)
    areas: dict[str, list[int]] = {}
    total = pixels.sum(axis=1)
    pixels[:, ignore_index] = 0
    for of_object, area in zip(pixels, total, strict=True):
        if of_object.any():
            areas.setdefault(str(of_object.argmax()), []).append(int(area))
    return areas


# --- reading, with the cache where samples are files


def _read(split: Split, indices: Sequence[int], read: Callable, facts: Facts) -> list[dict | DataError]:
    if not read_by_labels(split):  # annotations are quick to draw again
        return list(
            of_each(functools.partial(_or_error, read), [(split, one) for one in indices], "measuring")
        )
    index_of = {split.pairs[index].image: index for index in indices}
    if len(index_of) < len(indices):  # an image with several masks
        return [_or_error(read, split, index) for index in indices]

    def with_states(path: str) -> dict | DataError:
        began = time.time()
        states = [[other, _state(other)] for other in _other_files(split, index_of[path])]
        numbers = _or_error(read, split, index_of[path])
        if isinstance(numbers, DataError):
            return numbers
        return {"read": began, "files": states, "numbers": numbers}

    found = per_file(_kind(split, indices, facts), list(index_of), with_states, _checked, THREADS)
    return [one if isinstance(one, DataError) else one["numbers"] for one in found]


def _other_files(split: PairedFiles, index: int) -> list[str]:
    """The files of a sample besides the one that its image is known by."""
    pair = split.pairs[index]
    channels = [] if split.channels is None else split.channels.files(pair.image)
    instances = [] if pair.instances is None or split.objects is None else [pair.instances]
    return [*(path for path in channels if path != pair.image), pair.mask, *instances]


def _kind(split: PairedFiles, indices: Sequence[int], facts: Facts) -> str:
    """Name of the cache for these samples, read in this way."""
    files = [os.path.abspath(path) for index in indices for path in _other_files(split, index)]
    objects = getattr(split.objects, "__qualname__", None)
    way = (
        VERSION,
        split.labels,
        split.channels,
        objects,
        facts.num_classes,
        facts.things,
        facts.ignore_index,
    )
    return f"measures-{hashlib.sha256(repr((way, files)).encode()).hexdigest()[:16]}"


def _or_error(read: Callable, split: Split, index: int) -> dict | DataError:
    try:
        return read(split, index)
    except DataError as error:
        return error


def _state(path: str) -> list[int]:
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _checked(cached: dict) -> dict:
    """The cached entry; ValueError if the mask or the object numbers of the image have changed since."""
    for path, state in cached["files"]:
        if state != _state(path) or max(state[2:]) / 1e9 > cached["read"] - CLOCK_S:
            raise ValueError("the file has changed")
    numbers = cached["numbers"]
    if {"size", "moments", "pixels", "areas"} - numbers.keys():
        raise ValueError("not the numbers of a sample")
    return cached
