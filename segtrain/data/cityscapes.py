"""Cityscapes with fine and coarse annotations."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import numpy as np

from segtrain.data.files.labels import Labels
from segtrain.data.files.official import say_other_counts
from segtrain.data.files.pairs import Pair, PairedFiles, check_inside
from segtrain.data.joined import ConcatSplit, SubsetSplit
from segtrain.data.parts import Data, Split
from segtrain.errors import ConfigError, DataError
from segtrain.options import WITHIN_0_1, FilePath
from segtrain.sample import IGNORE, Facts
from segtrain.text import count


class Label(NamedTuple):
    """A label of the annotators. id: its value in *_labelIds.png; the list has no value for the license
    plate, -1, which a PNG holds as 255. evaluated: whether it is one of the 19 classes. objects: whether its
    pixels carry object numbers in *_instanceIds.png."""

    id: int
    name: str
    category: str
    evaluated: bool
    objects: bool
    colour: tuple[int, int, int]


LABELS = (
    Label(0, "unlabeled", "void", False, False, (0, 0, 0)),
    Label(1, "ego vehicle", "void", False, False, (0, 0, 0)),
    Label(2, "rectification border", "void", False, False, (0, 0, 0)),
    Label(3, "out of roi", "void", False, False, (0, 0, 0)),
    Label(4, "static", "void", False, False, (0, 0, 0)),
    Label(5, "dynamic", "void", False, False, (111, 74, 0)),
    Label(6, "ground", "void", False, False, (81, 0, 81)),
    Label(7, "road", "flat", True, False, (128, 64, 128)),
    Label(8, "sidewalk", "flat", True, False, (244, 35, 232)),
    Label(9, "parking", "flat", False, False, (250, 170, 160)),
    Label(10, "rail track", "flat", False, False, (230, 150, 140)),
    Label(11, "building", "construction", True, False, (70, 70, 70)),
    Label(12, "wall", "construction", True, False, (102, 102, 156)),
    Label(13, "fence", "construction", True, False, (190, 153, 153)),
    Label(14, "guard rail", "construction", False, False, (180, 165, 180)),
    Label(15, "bridge", "construction", False, False, (150, 100, 100)),
    Label(16, "tunnel", "construction", False, False, (150, 120, 90)),
    Label(17, "pole", "object", True, False, (153, 153, 153)),
    Label(18, "polegroup", "object", False, False, (153, 153, 153)),
    Label(19, "traffic light", "object", True, False, (250, 170, 30)),
    Label(20, "traffic sign", "object", True, False, (220, 220, 0)),
    Label(21, "vegetation", "nature", True, False, (107, 142, 35)),
    Label(22, "terrain", "nature", True, False, (152, 251, 152)),
    Label(23, "sky", "sky", True, False, (70, 130, 180)),
    Label(24, "person", "human", True, True, (220, 20, 60)),
    Label(25, "rider", "human", True, True, (255, 0, 0)),
    Label(26, "car", "vehicle", True, True, (0, 0, 142)),
    Label(27, "truck", "vehicle", True, True, (0, 0, 70)),
    Label(28, "bus", "vehicle", True, True, (0, 60, 100)),
    Label(29, "caravan", "vehicle", False, True, (0, 0, 90)),
    Label(30, "trailer", "vehicle", False, True, (0, 0, 110)),
    Label(31, "train", "vehicle", True, True, (0, 80, 100)),
    Label(32, "motorcycle", "vehicle", True, True, (0, 0, 230)),
    Label(33, "bicycle", "vehicle", True, True, (119, 11, 32)),
)
"""As in cityscapesScripts, helpers/labels.py."""
FIRST_OF_30 = 4
"""Labels with lower ids (unlabeled, ego vehicle, rectification border, out of roi) have no class; ids 4 to 33
are the 30 classes of the paper."""
FIRST_OBJECT = 1000
"""Values in *_instanceIds.png: 1000·id + number for objects, the id for everything else."""
PUBLISHED = {"train": 2975, "val": 500, "test": 1525, "train_extra": 19998}
IMAGES = "leftImg8bit"
ARCHIVES = {
    "leftImg8bit": "leftImg8bit_trainvaltest.zip",
    "leftImg8bit/train_extra": "leftImg8bit_trainextra.zip",
    "gtFine": "gtFine_trainvaltest.zip",
    "gtCoarse": "gtCoarse.zip",
}


def cityscapes(
    root: FilePath,
    classes: Literal["19", "30", "categories"] = "19",
    train: Literal["fine", "coarse", "coarse_extra", "mixed"] = "fine",
    coarse_share: Annotated[float, WITHIN_0_1] = 0.5,
) -> Data:
    """Cityscapes street scenes, 2048x1024, 19 classes: 2975 training and 500 validation images.

    Cordts et al.: The Cityscapes dataset for semantic urban scene understanding, CVPR 2016. Validation is on
    the fine annotations, whatever the training uses. The group of a sample is its city. The annotations of
    the test split are not public: there its files hold no label.

    Options:
        root: folder that holds leftImg8bit/ and gtFine/ (and gtCoarse/), as the official archives unpack
        classes: 19: those of the benchmark; 30: all but the void labels below id 4, and the license plate;
            categories: flat, construction, object, nature, sky, human, vehicle
        train: annotations to train on. fine: the training split; coarse: the same images with coarse
            annotations; coarse_extra: the 19998 further images with coarse annotations; mixed: fine and
            coarse_extra, or coarse if there is no train_extra
        coarse_share: share of coarse samples in train=mixed; the rarer ones are repeated
    """
    root_of = _Root(root)
    names, indices, colours, things = CLASS_LISTS[classes]
    labels = Labels(len(names), label_map=indices, fixed=True)
    facts = Facts(classes=names, palette=colours, things=things)
    return Data(facts, root_of.splits(train, coarse_share, labels))


class ClassList(NamedTuple):
    """names, colours: of each class. indices: label id -> class index or IGNORE. things: classes of
    objects."""

    names: tuple[str, ...]
    indices: dict[int, int]
    colours: tuple[tuple[int, int, int], ...]
    things: tuple[int, ...]


def _class_list(key: Callable[[Label], str | None]) -> ClassList:
    """The classes of a choice. key: name of a label's class, None for no label."""
    members: dict[str, list[Label]] = {}
    for label in LABELS:
        if (name := key(label)) is not None:
            members.setdefault(name, []).append(label)
    names = list(members)
    return ClassList(
        tuple(names),
        {label.id: IGNORE if (name := key(label)) is None else names.index(name) for label in LABELS},
        tuple(labels[0].colour for labels in members.values()),
        tuple(index for index, labels in enumerate(members.values()) if all(one.objects for one in labels)),
    )


CLASS_LISTS = {
    "19": _class_list(lambda label: label.name if label.evaluated else None),
    "30": _class_list(lambda label: label.name if label.id >= FIRST_OF_30 else None),
    "categories": _class_list(lambda label: label.category if label.category != "void" else None),
}


def objects(stored: np.ndarray) -> np.ndarray:
    """H×W uint16 object numbers of a stored *_instanceIds.png: 1000·id + number, 0 where there is no
    object."""
    return np.where(stored >= FIRST_OBJECT, stored, 0).astype(np.uint16)


class _Root:
    """The folder tree of the official archives."""

    def __init__(self, root: str):
        self.root = root
        if not os.path.isdir(root):
            raise ConfigError(
                f"data.root is {root!r}, which is not a folder; it holds {IMAGES}/ and gtFine/, as "
                f"{ARCHIVES[IMAGES]} and {ARCHIVES['gtFine']} unpack"
            )

    def splits(self, train: str, coarse_share: float, labels: Labels) -> dict[str, Split]:
        parts: dict[str, list[Pair]] = {"val": self._pairs("val", "gtFine")}
        if train in ("fine", "mixed"):
            parts["train"] = self._pairs("train", "gtFine")
        has_extra = self._has(IMAGES, "train_extra")
        if train == "coarse_extra" or (train == "mixed" and has_extra):
            parts["train_extra"] = self._pairs("train_extra", "gtCoarse")
        if train == "coarse" or (train == "mixed" and not has_extra):
            parts["coarse"] = self._pairs("train", "gtCoarse")
        if self._has(IMAGES, "test") and self._has("gtFine", "test"):
            parts["test"] = self._pairs("test", "gtFine")
        say_other_counts("Cityscapes", {part: len(pairs) for part, pairs in parts.items()}, PUBLISHED)
        read = {part: PairedFiles(pairs, labels, objects=objects) for part, pairs in parts.items()}
        sources = [read.pop(part) for part in ("train", "coarse", "train_extra") if part in read]
        fine_and_coarse = len(sources) == 2
        return {"train": mixed(*sources, coarse_share) if fine_and_coarse else sources[0], **read}

    def _has(self, *folders: str) -> bool:
        return os.path.isdir(os.path.join(self.root, *folders))

    def _folder(self, kind: str, part: str) -> str:
        folder = os.path.join(self.root, kind, part)
        if not os.path.isdir(folder):
            archive = ARCHIVES.get(f"{kind}/{part}") or ARCHIVES[kind]
            there = ", ".join(sorted(os.listdir(self.root))[:8]) or "nothing"
            raise ConfigError(
                f"data.root={self.root} has no folder {kind}/{part}, which {archive} holds; found: {there}; "
                f"`segtrain data prepare data=cityscapes` unpacks archives"
            )
        return folder

    def _pairs(self, part: str, annotation: str) -> list[Pair]:
        """The images of a part with their annotations. DataError names images without and annotations without
        an image, and a folder without either."""
        images = by_stem(self._folder(IMAGES, part), f"_{IMAGES}.png")
        masks = by_stem(self._folder(annotation, part), f"_{annotation}_labelIds.png")
        numbers = by_stem(self._folder(annotation, part), f"_{annotation}_instanceIds.png")
        if not images:
            raise DataError(
                f"{self._folder(IMAGES, part)} holds no CITY/CITY_SEQUENCE_FRAME_{IMAGES}.png; expected the "
                f"content of {ARCHIVES[IMAGES]}"
            )
        for kind, lonely in (("image", images.keys() - masks.keys()), ("mask", masks.keys() - images.keys())):
            if lonely:
                alone = count(len(lonely), f"{kind} of {part} is", f"{kind}s of {part} are")
                raise DataError(
                    f"Cityscapes in {self.root}: {alone} without its counterpart in {IMAGES} or {annotation} "
                    f"(*_labelIds.png), {sorted(lonely)[0]} first; unpack {ARCHIVES[annotation]} again"
                )
        return [
            Pair(images[name], masks[name], name, name.split("/")[0], numbers.get(name)) for name in images
        ]


def mixed(fine: Split, coarse: Split, coarse_share: float) -> Split:
    """Fine and coarse samples, of which `coarse_share` (0..1) are coarse. Each sample occurs at least once;
    the rarer kind is repeated."""
    wanted = len(fine) * coarse_share / (1 - coarse_share)  # coarse samples beside each fine one once
    num_fine, num_coarse = len(fine), round(wanted)
    if num_coarse < len(coarse):
        num_fine, num_coarse = round(len(coarse) * (1 - coarse_share) / coarse_share), len(coarse)
    indices = [index % len(fine) for index in range(num_fine)]
    indices += [len(fine) + index % len(coarse) for index in range(num_coarse)]
    return SubsetSplit(ConcatSplit([fine, coarse]), indices)


def by_stem(folder: str, ending: str) -> dict[str, str]:
    """{"CITY/CITY_SEQUENCE_FRAME": path} of the files in the folders of cities, in sorted order. The folder
    may be a link to another disk; a file must not lead out of it."""
    found = {}
    for city in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not city.is_dir() or city.name.startswith("."):
            continue
        for name in sorted(os.listdir(city.path)):
            if name.endswith(ending) and not name.startswith("."):
                path = os.path.join(city.path, name)
                check_inside(path, folder)
                found[f"{city.name}/{name.removesuffix(ending)}"] = path
    return found
