"""Targets from annotation files: labelme's folder of JSON files, a JSON file in COCO's format, CVAT's XML
file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from segtrain.data.files.classes import Named
from segtrain.data.files.coco_json import CocoJson, Painting
from segtrain.data.files.cvat import read_cvat
from segtrain.data.files.labelme import read_labelme
from segtrain.data.files.outlines import paint
from segtrain.data.files.per_file import per_file
from segtrain.data.parts import Header
from segtrain.errors import ConfigError, DataError, nearest
from segtrain.sample import IGNORE
from segtrain.text import count, notice

BACKGROUND = ("background", "_background_", "__background__")
UNLABELLED = ("ignore", "__ignore__", "_ignore_", "void")
THREADS = min(8, os.cpu_count() or 1)
SAMPLED = 50  # images in which overlaps are counted


class Annotations(Protocol):
    """keys: name of an image (path without suffix) -> its key. labels: how many shapes each label has. lines:
    number of shapes without area, which are left out."""

    keys: Mapping[str, str]
    labels: Counter[str]
    lines: int

    def header(self, key: str) -> Header | DataError:
        """The size of an image, as the annotation says."""

    def where(self, key: str) -> str:
        """What messages call the annotation of an image."""

    def file(self, key: str) -> str:
        """The file that holds the annotation of an image."""

    def target(self, key: str, values: Mapping[str, int], background: int) -> tuple[np.ndarray, int]:
        """H×W uint8: the value of each label, `background` elsewhere; and on how many pixels values
        differ."""


class Labelme:
    """A folder of labelme's JSON files, each of the image of its name. What they hold is cached."""

    def __init__(self, folder: str):
        self.keys = dict(sorted(_json_files(folder).items()))
        if not self.keys:
            raise DataError(
                f"data.annotations={folder} holds no .json file; give the folder of labelme's files"
            )
        read = per_file("labelme", list(self.keys.values()), _labels_or_error, _parsed, THREADS)
        self._contents = dict(zip(self.keys.values(), read, strict=True))
        good = [one for one in read if not isinstance(one, DataError)]
        if not good:
            raise read[0]
        self.labels = sum((Counter(labels) for _, labels, _ in good), Counter())
        self.lines = sum(lines for _, _, lines in good)

    def header(self, key: str) -> Header | DataError:
        content = self._contents[key]
        return content if isinstance(content, DataError) else Header(*content[0])

    def where(self, key: str) -> str:
        return key

    def file(self, key: str) -> str:
        return key

    def target(self, key: str, values: Mapping[str, int], background: int) -> tuple[np.ndarray, int]:
        size, shapes, _ = read_labelme(key)
        return paint([(shape, values[shape.label]) for shape in shapes], size, background)


def _json_files(folder: str) -> dict[str, str]:
    found = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() == ".json" and not name.startswith("."):
                key = os.path.normpath(os.path.join(os.path.relpath(place, folder), stem)).replace(
                    os.sep, "/"
                )
                found[key] = os.path.join(place, name)
    return found


def _labels_or_error(path: str) -> list | DataError:
    try:
        size, shapes, lines = read_labelme(path)
    except DataError as error:
        return error
    return [list(size), dict(Counter(shape.label for shape in shapes)), lines]


def _parsed(plain: list) -> list:
    (height, width), labels, lines = plain
    if not all(type(number) is int for number in (height, width, lines, *labels.values())):
        raise ValueError("not the content of an annotation")
    return [(height, width), {str(label): number for label, number in labels.items()}, lines]


class Cvat:
    """An XML file of CVAT."""

    def __init__(self, path: str):
        self._path, self._images = path, read_cvat(path)
        self.keys = {os.path.splitext(name)[0]: name for name in self._images}
        self.labels = Counter(shape.label for _, shapes, _ in self._images.values() for shape in shapes)
        self.lines = sum(lines for _, _, lines in self._images.values())

    def header(self, key: str) -> Header:
        return Header(*self._images[key][0])

    def where(self, key: str) -> str:
        return f"{key} in {self._path}"

    def file(self, key: str) -> str:
        return self._path

    def target(self, key: str, values: Mapping[str, int], background: int) -> tuple[np.ndarray, int]:
        size, shapes, _ = self._images[key]
        return paint([(shape, values[shape.label]) for shape in shapes], size, background)


class Coco:
    """A JSON file in COCO's format."""

    def __init__(self, path: str):
        self._coco = CocoJson(path)
        numbers = range(len(self._coco))
        self.keys = {os.path.splitext(self._coco.file_name(number))[0]: str(number) for number in numbers}
        self._names = dict(zip(self._coco.category_ids, self._coco.category_names, strict=True))
        used = Counter(key for number in numbers for key in self._coco.objects(number).categories.tolist())
        self.labels = Counter({name: used[key] for key, name in self._names.items() if used[key]})
        self.lines = self._coco.num_left_out

    def header(self, key: str) -> Header:
        return Header(*self._coco.size(int(key)))

    def where(self, key: str) -> str:
        return f"{self._coco.file_name(int(key))} in {self._coco.path}"

    def file(self, key: str) -> str:
        return self._coco.path

    def target(self, key: str, values: Mapping[str, int], background: int) -> tuple[np.ndarray, int]:
        class_of = {key: values[name] for key, name in self._names.items() if name in values}
        return self._coco.painted(int(key), Painting(class_of, background))[0], 0


@dataclass(frozen=True)
class Drawn:
    """The `Targets` of annotations. values: class index, or IGNORE, of each label. background: value of
    pixels outside of all shapes."""

    annotations: Annotations = field(repr=False)
    values: Mapping[str, int]
    background: int

    def files(self, key: str) -> tuple[str, ...]:
        """The files that a target is read from."""
        return (self.annotations.file(key),)

    def headers(self, keys: Sequence[str]) -> list[Header | DataError]:
        """The size of each image, or why its annotation cannot be read."""
        return [self.annotations.header(key) for key in keys]

    def where(self, key: str) -> str:
        """What messages call the annotation of an image."""
        return self.annotations.where(key)

    def target(self, key: str) -> np.ndarray:
        """H×W uint8 class indices, IGNORE where unlabelled."""
        return self.annotations.target(key, self.values, self.background)[0]


def read_annotations(path: str, root: str | None) -> Annotations:
    """The annotations at `path`, which is looked for below root first. ConfigError if there are none."""
    below = os.path.join(root or "", path)
    found = below if os.path.exists(below) else path
    if os.path.isdir(found):
        return Labelme(found)
    kind = os.path.splitext(found)[1].lower()
    if not os.path.isfile(found) or kind not in (".json", ".xml"):
        raise ConfigError(
            f"data.annotations is {path!r}; allowed: a folder of labelme's JSON files, a JSON file in "
            f"COCO's format, or "
            f"an XML file of CVAT"
        )
    return Cvat(found) if kind == ".xml" else Coco(found)


def drawn_classes(annotations: Annotations, named: Named, label_map: Mapping | None) -> tuple[Named, Drawn]:
    """The classes and the targets of annotations; both are told.

    named: the given classes; without any, each label is one, after the background. label_map: label -> class
    index or IGNORE. DataError for labels that are no class.
    """
    given = {str(label): index for label, index in (label_map or {}).items()}
    labels = [
        label for label in sorted(annotations.labels) if label.lower() not in (*UNLABELLED, *BACKGROUND)
    ]
    if not named.names:
        if given:
            raise ConfigError("data.label_map of annotations needs data.classes, which its numbers index")
        if not labels:
            raise DataError(
                "the annotations hold no shape with an area and a label; nothing could be learned"
            )
        shown = ", ".join(f"{label} ({annotations.labels[label]})" for label in labels[:20])
        notice(
            f"found {count(len(labels), 'label')} in {count(len(annotations.keys), 'annotation')}: {shown}"
            f"{' …' if len(labels) > 20 else ''}; with the background first, they are the classes"
        )
        named = Named((BACKGROUND[0], *labels))
    index_of = {name: index for index, name in enumerate(named.names)}
    background = next((index_of[name] for name in named.names if name.lower() in BACKGROUND), IGNORE)
    values = {label: IGNORE for label in annotations.labels if label.lower() in UNLABELLED}
    values |= {label: background for label in annotations.labels if label.lower() in BACKGROUND}
    values |= index_of | given
    _check(annotations, named, values)
    drawn = Drawn(annotations, values, background)
    _tell(drawn)
    return named, drawn


def _check(annotations: Annotations, named: Named, values: Mapping[str, int]) -> None:
    beyond = next((label for label, value in values.items() if len(named.names) <= value != IGNORE), None)
    if beyond is not None:
        raise ConfigError(
            f"data.label_map leads to {values[beyond]} for {beyond!r}; allowed: 0..{len(named.names) - 1} "
            f"and {IGNORE} "
            f"(no label)"
        )
    unknown = {label: number for label, number in annotations.labels.most_common() if label not in values}
    if unknown:
        first = next(iter(unknown))
        shown = ", ".join(f"{label!r} ({number} shapes)" for label, number in list(unknown.items())[:8])
        raise DataError(
            f"the annotations hold labels that are no class: {shown}{' …' if len(unknown) > 8 else ''}"
            f"{nearest(first, named.names)}; classes are {', '.join(named.names)}; add the labels to "
            f"data.classes, or "
            f"give each a class index or {IGNORE} (no label): data.label_map='{{{first}: {IGNORE}}}'"
        )


def _tell(drawn: Drawn) -> None:
    """Notices about what annotations leave open: shapes without area, pixels without shape, overlaps."""
    annotations = drawn.annotations
    if annotations.lines:
        notice(f"warning: {count(annotations.lines, 'shape')} without area (boxes, points, lines) left out")
    if drawn.background == IGNORE:
        notice("pixels outside of all shapes have no label; to make them a class, name one 'background'")
    keys = list(annotations.keys.values())
    overlaps, read = 0, keys[:: -(-len(keys) // SAMPLED)]
    for key in read:
        if not isinstance(annotations.header(key), DataError):
            overlaps += annotations.target(key, drawn.values, drawn.background)[1] > 0
    if overlaps:
        notice(
            f"shapes of different classes overlap in {overlaps} of {count(len(read), 'annotation')} looked "
            f"at; the "
            f"later shape of a file is on top"
        )
