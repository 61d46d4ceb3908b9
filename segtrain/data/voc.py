"""Pascal VOC's segmentation challenge, 2007 and 2012."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from segtrain.data.files.labels import Labels
from segtrain.data.files.official import say_other_counts
from segtrain.data.files.pairs import Pair, PairedFiles, files_by_stem
from segtrain.data.parts import Data
from segtrain.errors import ConfigError, DataError
from segtrain.options import FilePath
from segtrain.sample import IGNORE, Facts, voc_palette
from segtrain.text import count

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
THINGS = tuple(range(1, 21))
VOID = voc_palette(256)[255]
"""Colour of the border of objects."""
PUBLISHED = {2007: {"train": 209, "val": 213, "test": 210}, 2012: {"train": 1464, "val": 1449}}
TRAINVAL = {2007: "VOCtrainval_06-Nov-2007.tar", 2012: "VOCtrainval_11-May-2012.tar"}
TEST = {2007: "VOCtest_06-Nov-2007.tar"}
LISTS = "ImageSets/Segmentation"
MASKS = "SegmentationClass"


def voc(root: FilePath, year: Literal[2007, 2012] = 2012) -> Data:
    """Pascal VOC segmentation, 20 classes of objects and background: 1464 training and 1449 validation images
    (2012).

    Everingham et al.: The Pascal Visual Object Classes challenge, IJCV 2010. The 5 pixels around objects, and
    difficult objects, have no label. Only 2007 has a test split with masks.

    Options:
        root: folder that holds VOCdevkit/, as the official archive unpacks; or VOCdevkit itself, or VOC2012
            in it
        year: 2012: 1464 training and 1449 validation images; 2007: 209 and 213, and 210 of test
    """
    devkit = Devkit(root, year)
    parts = {part: devkit.pairs(devkit.names(part)) for part in ("train", "val")}
    if devkit.has_test():
        parts["test"] = devkit.pairs(devkit.names("test"))
    return data_of(f"VOC {year}", parts, PUBLISHED[year])


def data_of(name: str, parts: Mapping[str, list[Pair]], published: Mapping[str, int]) -> Data:
    """The data set of these pairs. DataError if an image is in two splits; a notice if there are not as many
    as published. name: what messages call the data set."""
    check_disjoint(parts)
    say_other_counts(name, {part: len(pairs) for part, pairs in parts.items()}, published)
    palette = voc_palette(len(CLASSES))
    # With the colours, so that masks that a program has saved anew, with a palette of its own or as RGB, are
    # not read by wrong indices.
    labels = Labels(len(CLASSES), colours=palette, ignored_colours=(VOID,), fixed=True)
    facts = Facts(classes=CLASSES, palette=palette, things=THINGS)
    return Data(facts, {part: PairedFiles(pairs, labels, objects=objects) for part, pairs in parts.items()})


def check_disjoint(parts: Mapping[str, Iterable[Pair]]) -> None:
    """DataError if two splits share an image."""
    split_of: dict[str, str] = {}
    for part, pairs in parts.items():
        for pair in pairs:
            other = split_of.setdefault(pair.image, part)
            if other != part:
                raise DataError(
                    f"{pair.image} is in the lists of {other} and of {part}; an image belongs to one split: "
                    f"correct {LISTS}"
                )


def objects(stored: np.ndarray) -> np.ndarray:
    """H×W uint16 object numbers of a stored SegmentationObject mask: 0 for the background and for the void
    border, 255."""
    return np.where(stored == IGNORE, 0, stored).astype(np.uint16)


class Devkit:
    """The folder VOCdevkit/VOC2012 (VOC2007) below a root. ConfigError, naming the missing folder and the
    archive that holds it, if there is none."""

    def __init__(self, root: str, year: int):
        self.year = year
        self.folder = self._found(root)
        self._images = files_by_stem(self._existing("JPEGImages"), (".jpg",))
        self._objects = files_by_stem(os.path.join(self.folder, "SegmentationObject"), (".png",))

    def _found(self, root: str) -> str:
        if not os.path.isdir(root):
            raise ConfigError(
                f"data.root is {root!r}, which is not a folder; it holds VOCdevkit/, as "
                f"{TRAINVAL[self.year]} unpacks"
            )
        for folder in (f"VOCdevkit/VOC{self.year}", f"VOC{self.year}"):
            if os.path.isdir(os.path.join(root, folder)):
                return os.path.join(root, folder)
        itself = re.fullmatch(r"VOC(\d{4})", os.path.basename(os.path.realpath(root)))
        if itself and itself[1] != str(self.year):
            raise ConfigError(
                f"data.root={root} is VOC {itself[1]} and data.year is {self.year}; set data.year or the "
                f"folder above it"
            )
        if itself or os.path.isdir(os.path.join(root, LISTS)):
            return root
        raise self._missing(root, f"VOCdevkit/VOC{self.year}")

    def _missing(self, root: str, what: str) -> ConfigError:
        there = ", ".join(sorted(os.listdir(root))[:8]) or "nothing"
        return ConfigError(
            f"{root} has no {what}, which {TRAINVAL[self.year]} holds; found: {there}; unpack it with "
            f"segtrain data prepare data=voc data.year={self.year} data.root=… archives=FOLDER"
        )

    def _existing(self, folder: str) -> str:
        path = os.path.join(self.folder, folder)
        if not os.path.isdir(path):
            raise self._missing(self.folder, folder)
        return path

    def masks(self, folder: str = MASKS) -> dict[str, str]:
        """{name: path} of the masks in a folder."""
        return files_by_stem(self._existing(folder), (".png",))

    def list_path(self, part: str) -> str:
        """Path of the list of a split."""
        return os.path.join(self.folder, LISTS, f"{part}.txt")

    def names(self, part: str) -> list[str]:
        """The names in the list of a split."""
        if not os.path.isfile(self.list_path(part)):
            raise self._missing(self.folder, f"{LISTS}/{part}.txt")
        return read_names(self.list_path(part))

    def has_test(self) -> bool:
        """Whether there is a test split with masks; those of 2012 are not public."""
        if not os.path.isfile(self.list_path("test")):
            return False
        masks = self.masks()
        return any(name in masks for name in self.names("test"))

    def pairs(self, names: Iterable[str], masks: Mapping[str, str] | None = None) -> list[Pair]:
        """Images with their masks, and their object numbers where there are some. DataError for a name
        without an image or without a mask. masks: {name: path}; None: those of SegmentationClass."""
        names, masks = list(names), self.masks() if masks is None else masks
        images = self.images(names)
        self._check_all(names, f"mask in {MASKS}", masks)
        return [Pair(images[name], masks[name], name, instances=self._objects.get(name)) for name in names]

    def images(self, names: Iterable[str]) -> dict[str, str]:
        """{name: path} of images. DataError for a name without an image."""
        names = list(names)
        self._check_all(names, "image in JPEGImages", self._images)
        return {name: self._images[name] for name in names}

    def _check_all(self, names: list[str], kind: str, found: Mapping[str, str]) -> None:
        lacking = [name for name in names if name not in found]
        if lacking:
            raise DataError(
                f"{self.folder}: {count(len(lacking), 'name')} of {LISTS} without {kind}, {lacking[0]} "
                f"first; unpack {TRAINVAL[self.year]} again"
            )


def read_names(path: str) -> list[str]:
    """The image names of a list with one name a line, in its order. The path of an image stands for its name,
    as in the lists of DeepLab. DataError for a name that is there twice."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.split() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from error
    names = [PurePosixPath(words[0]).stem for words in lines if words]
    if len(set(names)) < len(names):
        seen: set[str] = set()
        double = next(name for name in names if name in seen or seen.add(name))
        raise DataError(f"{path} has {double} twice; name each image once")
    if not names:
        raise DataError(f"{path} names no image; expected one name a line")
    return names
