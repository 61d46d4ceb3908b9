"""Predicted masks made by any program: found by the names of the images, read as class indices."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from segtrain.data.files.headers import read_headers
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairs import composed, find_images
from segtrain.data.files.reading import read_mask, read_mask_and_palette, without_colour
from segtrain.data.joined import headers_of
from segtrain.data.parts import Split
from segtrain.data.resized import nearest, resized_size
from segtrain.errors import ConfigError, DataError
from segtrain.sample import IGNORE
from segtrain.text import count

CITYSCAPES = re.compile(r"(.+_\d{6}_\d{6})_.*")
"""What names of Cityscapes begin with; the evaluation script takes every file that begins so."""
ENDINGS = re.compile(r"(_(leftImg8bit|gtFine|labelIds|labelTrainIds|pred|prediction|mask|seg|label))+$")
"""What programs add to the name of an image in that of its mask."""

FEW = 8
"""Predictions that are looked at where all of them would take too long."""


def matched(split: Split, folder: str) -> list[str]:
    """The path of the prediction of each sample, in the order of the split.

    Names go by stem: equal, or equal once `ENDINGS`, or what follows the frame number of Cityscapes, is taken
    off both. Where several files or samples share a stem, folders decide. DataError lists samples without a
    prediction, files that belong to no sample or compete for one, and files of another size.
    """
    if not os.path.isdir(folder):
        raise ConfigError(f"predictions={folder} is not a folder; give the folder of the predicted masks")
    files = find_images(folder, folder)
    names = [split.name(index) for index in range(len(split))]
    chosen, rivals = _assigned([_parts(os.path.splitext(name)[0]) for name in names], list(files))
    missing = [name for name, key in zip(names, chosen, strict=True) if key is None]
    extra = sorted({*files} - {*chosen} - {key for keys in rivals for key in keys})
    problems = [
        *_listed(missing, "image has no prediction", "images have no prediction"),
        *_listed(extra, "file belongs to no image of the split", "files belong to no image of the split"),
        *_listed(
            [" and ".join(keys) for keys in rivals],
            "image has several predictions",
            "images have several predictions",
        ),
        *_of_another_size(split, [key and files[key] for key in chosen]),
    ]
    if problems:
        raise DataError(
            f"the predictions in {folder} do not fit the split: {'; '.join(problems)}; give a "
            f"folder with one file for each image"
        )
    return [files[key] for key in chosen]


def _parts(name: str) -> tuple[str, ...]:
    return PurePath(composed(name)).parts


def _assigned(samples: Sequence[tuple[str, ...]], keys: Sequence[str]):
    """For each sample the key of its prediction, or None; and the keys that compete for a sample. samples:
    parts of their paths, without suffix. keys: relative paths without suffix."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    by_core: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        stem = _parts(key)[-1]
        by_stem[stem].append(key)
        by_core[core(stem)].append(key)
    chosen: list[str | None] = []
    rivals: list[list[str]] = []
    for parts in samples:
        found = by_stem.get(parts[-1]) or by_core.get(core(parts[-1]), [])
        shared = [_common_folders(parts, _parts(key)) for key in found]
        nearest = [key for key, number in zip(found, shared, strict=True) if number == max(shared)]
        if len(nearest) > 1:
            rivals.append(nearest)
        chosen.append(nearest[0] if nearest else None)
    return _each_once(samples, chosen), rivals


def _each_once(samples, chosen: list[str | None]) -> list[str | None]:
    """`chosen` with each key given once, to the sample in the most similar folder; to none if that is not a
    single one."""
    claimed = Counter(chosen)
    for key in (key for key, times in claimed.items() if key is not None and times > 1):
        places = [i for i, one in enumerate(chosen) if one == key]
        shared = [_common_folders(samples[i], _parts(key)) for i in places]
        best = [i for i, number in zip(places, shared, strict=True) if number == max(shared)]
        for i in places:
            if best != [i]:
                chosen[i] = None
    return chosen


def core(stem: str) -> str:
    """The stem without what programs append."""
    found = CITYSCAPES.fullmatch(stem)
    return found[1] if found else ENDINGS.sub("", stem)


def _common_folders(parts: tuple[str, ...], others: tuple[str, ...]) -> int:
    """How many folders right above the files have the same names."""
    number = 0
    for one, other in zip(parts[-2::-1], others[-2::-1], strict=False):
        if one != other:
            break
        number += 1
    return number


def _listed(names: Sequence[str], one: str, many: str) -> list[str]:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [f"{count(len(names), one, many)} ({shown})"] if names else []


def _of_another_size(split: Split, paths: Sequence[str | None]) -> list[str]:
    known = [index for index, path in enumerate(paths) if path is not None]
    wrong = []
    headers = zip(known, read_headers([paths[i] for i in known]), headers_of(split, known), strict=True)
    for index, own, image in headers:
        for header in (own, image):
            if isinstance(header, DataError):
                raise header
        if own[:2] != image[:2]:
            wrong.append(f"{paths[index]} is {own[0]}x{own[1]}, the image {image[0]}x{image[1]}")
    return _listed(
        wrong, "file has another size (height x width)", "files have another size (height x width)"
    )


def labels_of(split: Split) -> Labels | None:
    """How the masks of a split are read; None if it is not made of mask files, if these are read in several
    ways, or if the classes of the files are mapped onto others."""
    if hasattr(split, "labels"):
        return split.labels
    if hasattr(split, "table"):
        return None
    inner = [split.split] if hasattr(split, "split") else list(getattr(split, "splits", ()))
    found = [labels_of(one) for one in inner]
    return found[0] if found and all(one == found[0] for one in found) else None


def read_prediction(path: str, num_classes: int, labels: Labels | None = None) -> np.ndarray:
    """H×W uint8 class indices, `num_classes` for no class.

    labels: the file holds the values of the data set's own masks; None: it holds class indices and IGNORE.
    DataError for other values and for colours.
    """
    # No limit of pixels: `matched` has compared the size with that of the image.
    if labels is not None:
        mask, palette = read_mask_and_palette(path, None, labels.nearest)
        classes = labels.target(mask, path, palette)
    elif (mask := without_colour(read_mask(path, None))).ndim == 3:
        raise DataError(
            f"prediction {path} holds colours; allowed: class indices, as grey or palette image; save the "
            f"indices themselves, before they are coloured"
        )
    else:
        classes = mask
        wrong = np.unique(mask[(mask >= num_classes) & (mask != IGNORE)])
        if wrong.size:
            shown = ", ".join(map(str, wrong[:8]))
            raise DataError(
                f"prediction {path} holds {shown}; allowed with ids=classes: 0..{num_classes - 1} and "
                f"{IGNORE} (no class); if these are the values of the data set's own masks, set ids=labels"
            )
    return np.where(classes == IGNORE, num_classes, classes).astype(np.uint8)


class Reading(NamedTuple):
    """Shares of the labelled pixels that are right, and that are predicted as no class."""

    right: float
    of_no_class: float


def reading_of(
    split: Split, paths: Sequence[str], num_classes: int, labels: Labels | None = None
) -> Reading | None:
    """The shares of a sample of up to FEW predictions, read as by `read_prediction`; None if one of them
    cannot be read so, or if no pixel has a label."""
    right = of_no_class = labelled = 0
    for index in range(0, len(paths), -(-len(paths) // FEW)):
        try:
            one = pair(split, index, read_prediction(paths[index], num_classes, labels), with_instances=False)
        except DataError:
            return None
        known = one.target != IGNORE
        right += int((one.decisions == one.target).sum())
        of_no_class += int((known & (one.decisions == num_classes)).sum())
        labelled += int(known.sum())
    return Reading(right / labelled, of_no_class / labelled) if labelled else None


class Pair(NamedTuple):
    """target: H×W class indices. decisions: H×W predicted ones. instances: H×W object numbers, or None."""

    target: np.ndarray
    decisions: np.ndarray
    instances: np.ndarray | None

    def resized(self, short_side: int | None) -> Pair:
        """The pair with a shorter side of `short_side` pixels, by nearest neighbour; as it is for None."""
        if short_side is None:
            return self
        size = resized_size(self.target.shape, short_side)
        return Pair(*(None if one is None else nearest(one, size) for one in self))


def pair(split: Split, index: int, decisions: np.ndarray, with_instances: bool) -> Pair:
    """A prediction with the target of its sample, whose image is read only for the object numbers."""
    if not with_instances and hasattr(split, "target"):
        target, instances = split.target(index), None
    else:
        sample = split[index]
        target, instances = sample.target, sample.instances
    if with_instances and instances is None:
        raise ConfigError(
            f"metric: one of the metrics needs object numbers, and {split.name(index)} has none; leave it out"
        )
    if decisions.shape != target.shape:
        raise DataError(
            f"the prediction for {split.name(index)} is {decisions.shape[0]}x{decisions.shape[1]}, its mask "
            f"{target.shape[0]}x{target.shape[1]} (height x width); they must be equal"
        )
    return Pair(target, decisions, instances)
