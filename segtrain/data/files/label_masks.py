"""Masks in one folder a label: MASKS/road/1.png and MASKS/water/1.png of the image 1."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from segtrain.data.files.channels import Channels
from segtrain.data.files.classes import Named
from segtrain.data.files.headers import read_headers
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairing import Files, Places, Suffixes, find_files
from segtrain.data.files.reading import read_mask_and_palette
from segtrain.data.files.scan import MaskReader
from segtrain.data.files.values import of_masks
from segtrain.data.parts import Header
from segtrain.errors import ConfigError, DataError, printable
from segtrain.sample import CLASSES, Target, voc_palette
from segtrain.text import count

VALUES = Named(("without the label", "with the label"))


@dataclass(frozen=True)
class LabelFiles:
    """names: of the labels, in the order of the targets' channels. files: the images, each with itself as its
    mask. paths: name of an image -> its masks, in the order of the labels."""

    names: tuple[str, ...]
    files: Files
    paths: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class LabelMasks:
    """The `Targets` of masks in one folder a label; the key is the name of the image."""

    names: tuple[str, ...]
    paths: Mapping[str, tuple[str, ...]] = field(repr=False)
    values: Labels
    max_pixels: int

    def files(self, key: str) -> tuple[str, ...]:
        """The masks of an image."""
        return self.paths[key]

    def where(self, key: str) -> str:
        """What messages call the masks of an image."""
        return self.paths[key][0]

    def target(self, key: str) -> np.ndarray:
        """H×W×T uint8: 1 with the label, 0 without, IGNORE where unknown."""
        masks = []
        for path in self.paths[key]:
            mask, palette = read_mask_and_palette(path, self.max_pixels, self.values.nearest)
            masks.append(self.values.target(mask, path, palette))
            _check_same_size(self.paths[key][0], masks[0].shape, path, masks[-1].shape)
        return np.stack(masks, axis=2)

    def headers(self, keys: Sequence[str]) -> list[Header | DataError]:
        """The size of each target, or why its masks cannot be used."""
        read = iter(read_headers([path for key in keys for path in self.paths[key]]))
        return [self._checked(key, [next(read) for _ in self.names]) for key in keys]

    def _checked(self, key: str, headers: Sequence[Header | DataError]) -> Header | DataError:
        try:
            for path, header in zip(self.paths[key], headers, strict=True):
                if isinstance(header, DataError):
                    return header
                _check_same_size(self.paths[key][0], headers[0][:2], path, header[:2])
        except DataError as error:
            return error
        return headers[0]


def _check_same_size(first: str, size: Sequence[int], path: str, other: Sequence[int]) -> None:
    if tuple(size) != tuple(other):
        raise DataError(
            f"mask {first} is {size[0]}x{size[1]} and mask {path} is {other[0]}x{other[1]} (height x width), "
            f"of one image; they must be equal; correct or remove them"
        )


def check_labels(labels: list[str] | None, target: Target | None, others: Mapping[str, object]) -> None:
    """ConfigError unless labels are given where the task has labels, and only there. target: None where no
    task is known. others: options that do not go with labels."""
    target = target or CLASSES
    if labels is None:
        if target.multilabel:
            raise ConfigError(
                "data.labels is missing: it names the labels, each with a folder of masks, that the task "
                "learns"
            )
        return
    if not target.multilabel:
        raise ConfigError(
            f"data.labels=[{','.join(labels)}] gives a pixel any number of labels, which needs "
            f"task=multilabel, an option of segtrain train, data check and data show; use that, or "
            f"data.labels=null and one mask of classes for each image"
        )
    for key, value in others.items():
        if value is not None:
            raise ConfigError(f"data.labels and data.{key} exclude each other; set one of them to null")


def find_label_masks(
    names: Sequence[str], places: Places, suffixes: Suffixes, channels: Channels | None
) -> LabelFiles:
    """The images and their masks in the folders of the labels. ConfigError for labels without a folder,
    DataError for an image that has masks of some labels only."""
    _check_names(names, places)
    found = {}
    for name in names:
        folder = os.path.join(places.masks, name)
        if not os.path.isdir(folder):
            raise ConfigError(
                f"data.labels names {printable(name)!r}, and there is no folder {printable(folder)}; each "
                f"label needs a folder of its masks there"
            )
        found[name] = find_files(replace(places, masks=folder), suffixes, channels)
    images = found[names[0]].images
    paths, alone = {}, {}
    for image, path in images.items():
        missing = [name for name in names if image not in found[name].mask_of]
        if missing and len(missing) < len(names):
            raise DataError(
                f"image {path} has no mask of the label {printable(missing[0])!r}; each image needs one of "
                f"each label: add one of 0 where the label is absent, of 255 (no label) where it is unknown"
            )
        if not missing:
            paths[image] = tuple(files.masks[files.mask_of[image]] for files in found.values())
    for files in found.values():
        alone |= files.masks_alone()
    masks = {**{name: name for name in alone}, **{name: name for name in paths}}
    by_image = {name: name for name in paths}
    return LabelFiles(
        tuple(names), Files(images, masks, by_image, lambda key: alone.get(key) or paths[key][0]), paths
    )


def _check_names(names: Sequence[str], places: Places) -> None:
    bad = next((name for name in names if os.path.basename(name) != name or name[:1] in ("", ".")), None)
    if bad is not None or len(set(names)) != len(names) or not names:
        shown = ", ".join(map(printable, names))
        raise ConfigError(
            f"data.labels is [{shown}]; allowed: one name or more, each once, of folders below that of the "
            f"masks"
        )
    if len(names) > 255:
        raise ConfigError(f"data.labels holds {count(len(names), 'label')}; allowed: at most 255")
    if os.path.samefile(places.images, places.masks):
        raise ConfigError(
            "data.labels needs folders of masks apart from the images; set data.images and data.masks"
        )


def label_masks(
    found: LabelFiles,
    label_map: dict | None,
    ignore_value: int,
    lossy_masks: bool,
    used: Collection[str],
    reader: MaskReader,
    may_fail: Collection[str],
    max_pixels: int,
) -> tuple[Named, LabelMasks, dict]:
    """The labels, their masks and the settled options. used: names of the images whose masks are read to
    decide what 255 means. may_fail: those whose masks need not be readable."""

    def masks_of(keys: Collection[str]) -> list[str]:
        return [path for key in keys for path in found.paths[key]]

    _, values, settled = of_masks(
        VALUES, label_map, ignore_value, lossy_masks, masks_of(used), reader, set(masks_of(may_fail))
    )
    colours = voc_palette(len(found.names) + 1)[1:]  # no label is background, which alone is black
    return Named(found.names, colours), LabelMasks(found.names, found.paths, values, max_pixels), settled
