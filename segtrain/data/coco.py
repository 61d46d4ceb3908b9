"""COCO: objects, COCO-Stuff and panoptic annotations."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sized
from typing import Annotated, Literal

import numpy as np

from segtrain.data.coco_classes import LAST_THING, STUFF, VOC
from segtrain.data.files.coco_json import CocoJson, CocoObjects, Painting
from segtrain.data.files.coco_panoptic import CocoPanoptic, PanopticFiles
from segtrain.data.files.labels import Labels
from segtrain.data.files.official import say_other_counts
from segtrain.data.files.pairs import Pair, PairedFiles, files_by_stem
from segtrain.data.parts import Data
from segtrain.errors import ConfigError, DataError, nearest
from segtrain.options import FROM_0, FilePath
from segtrain.sample import Facts, voc_palette
from segtrain.text import count, notice

PUBLISHED = {"train": 118287, "val": 5000}
PARTS = tuple(PUBLISHED)
FOLDERS = ("coco", "COCO", "coco2017", "COCO2017")
"""Names of COCO's folder in a folder of several data sets."""
BACKGROUND = "background"
CONVERTED = "_labelTrainIds"
"""In the names of masks that mmsegmentation's converter writes beside the original ones."""
TREE = {
    "instances": "train2017/, val2017/, annotations/instances_{train,val}2017.json",
    "stuff": "train2017/, val2017/, stuffthingmaps/{train,val}2017/",
    "panoptic": "train2017/, val2017/, annotations/panoptic_{train,val}2017.json, panoptic_{train,val}2017/",
}


def coco(
    root: FilePath,
    labels: Literal["instances", "stuff", "panoptic"] = "instances",
    classes: list[str] | Literal["all", "voc"] = "all",
    overlap: Literal["small_on_top", "ignore"] = "small_on_top",
    crowd: Literal["ignore", "class"] = "ignore",
    min_area: Annotated[int, FROM_0] = 1000,
) -> Data:
    """COCO 2017: 118 287 training and 5 000 validation images, of 80 kinds of objects, or of 171 classes of
    objects and stuff.

    Lin et al. 2014, Microsoft COCO; COCO-Stuff: Caesar et al. 2018; panoptic: Kirillov et al. 2019. Needs
    segtrain[coco] for data.labels=instances. torchvision's references train with data.classes=voc
    data.overlap=ignore data.crowd=class.

    Options:
        root: folder with train2017/, val2017/ and the annotations (docs/data/coco.md), or one that holds it
            as coco/
        labels: instances: annotations/instances_*.json, 80 classes and the background; stuff:
            stuffthingmaps/, 171 classes; panoptic: annotations/panoptic_*.json and their PNGs, 133 classes
        classes: with labels=instances: all; voc: the 20 of Pascal VOC, by VOC's names and in its order; or a
            list of COCO's names. What is of no class is background
        overlap: with labels=instances, pixels of two objects. small_on_top: those of the smaller one; ignore:
            no label
        crowd: pixels of groups of objects (iscrowd). ignore: no label; class: the class of the group
        min_area: with labels=instances, training images whose objects of these classes have no larger area,
            in px, are left out; 0 keeps all images
    """
    if labels != "instances" and classes != "all":
        raise ConfigError(
            f"data.classes is {classes!r}; allowed with data.labels={labels}: all; choose classes with "
            f"data.labels=instances"
        )
    if not os.path.isdir(root):
        raise ConfigError(f"data.root is {root!r}, which is not a folder; it holds {TREE[labels]}")
    root = next((path for path in _places(root) if os.path.isdir(os.path.join(path, "train2017"))), root)
    for part in PARTS:
        _needed(root, labels, f"{part}2017")
    if labels == "instances":
        return _instances(root, classes, overlap, crowd, min_area)
    return _stuff(root) if labels == "stuff" else _panoptic(root, crowd == "ignore")


def _places(root: str) -> list[str]:
    return [root, *(os.path.join(root, name) for name in FOLDERS)]


def _instances(root: str, classes: list[str] | str, overlap: str, crowd: str, min_area: int) -> Data:
    files = {
        part: CocoJson(_needed(root, "instances", f"annotations/instances_{part}2017.json")) for part in PARTS
    }
    known = {
        part: dict(zip(one.category_names, one.category_ids, strict=True)) for part, one in files.items()
    }
    _refuse_other_categories(files, known)
    _say_counts(files)
    _tell_left_out(files.values())
    chosen = _chosen(classes, known["train"], files["train"].path)
    painting = Painting(
        {key: index for index, key in enumerate(chosen.values(), 1)}, overlap=overlap, crowd=crowd
    )
    indices = {part: np.arange(len(one)) for part, one in files.items()}
    if min_area:
        indices["train"] = np.flatnonzero(files["train"].areas(list(chosen.values())) > min_area)
    if not len(indices["train"]):
        raise DataError(
            f"{files['train'].path} has no image with more than {min_area} px of the classes "
            f"{', '.join(chosen)}; set data.min_area or data.classes"
        )
    names = (BACKGROUND, *chosen)
    facts = Facts(names, voc_palette(len(names)), things=tuple(range(1, len(names))))
    return Data(
        facts,
        {
            part: CocoObjects(files[part], os.path.join(root, f"{part}2017"), painting, indices[part])
            for part in PARTS
        },
    )


def _tell_left_out(files: Iterable[CocoJson]) -> None:
    """Notices about annotations without area."""
    for one in files:
        if one.num_left_out:
            left_out = count(one.num_left_out, "annotation")
            notice(f"warning: {left_out} of {one.path} without area (boxes, points, lines) left out")


def _chosen(classes: list[str] | str, known: dict[str, int], path: str) -> dict[str, int]:
    """{class name: category id}, without the background."""
    if classes == "all":
        if not 1 <= len(known) <= 254:
            raise DataError(f"{path} has {len(known)} categories; allowed: 1 to 254")
        return dict(sorted(known.items(), key=lambda item: item[1]))
    if classes == "voc":
        if missing := [name for name in VOC.values() if name not in known]:
            raise DataError(f"{path} has no category {missing[0]!r}, which data.classes=voc needs")
        return {name: known[of_coco] for name, of_coco in VOC.items()}
    names = classes[1:] if classes[:1] == [BACKGROUND] else classes
    for name in names:
        if name not in known:
            raise ConfigError(
                f"data.classes has {name!r}, which is no category of {path}{nearest(name, known)}; allowed: "
                f"all, voc, or a list of {', '.join(sorted(known))}"
            )
        if names.count(name) > 1:
            raise ConfigError(f"data.classes has {name!r} twice; each class needs its own name")
    if not names:
        raise ConfigError("data.classes names no class; allowed: all, voc, or a list of COCO's names")
    return {name: known[name] for name in names}


def _stuff(root: str) -> Data:
    splits = {part: PairedFiles(_stuff_pairs(root, part), _stuff_labels()) for part in PARTS}
    _say_counts(splits)
    things = tuple(index for index, key in enumerate(STUFF) if key <= LAST_THING)
    return Data(Facts(tuple(STUFF.values()), _palette(len(STUFF)), things=things), splits)


def _palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Colours of classes of which none is background: without black."""
    return voc_palette(num_classes + 1)[1:]


def _stuff_labels() -> Labels:
    """Values of stuffthingmaps are category ids less one, 255 where unlabelled."""
    mapping = {key - 1: index for index, key in enumerate(STUFF)}
    return Labels(len(STUFF), label_map=mapping, fixed=True)


def _stuff_pairs(root: str, part: str) -> list[Pair]:
    images = files_by_stem(os.path.join(root, f"{part}2017"), (".jpg",))
    masks = files_by_stem(_needed(root, "stuff", f"stuffthingmaps/{part}2017"), (".png",))
    masks = {name: path for name, path in masks.items() if CONVERTED not in name}
    lonely = sorted(set(images) ^ set(masks))
    if lonely:
        shown = ", ".join(lonely[:5]) + (f" and {len(lonely) - 5} more" if len(lonely) > 5 else "")
        what = count(len(lonely), f"image of {part} has", f"images of {part} have")
        raise DataError(f"COCO in {root}: {what} a photo or a mask only: {shown}; add or remove them")
    if not images:
        raise DataError(f"COCO in {root} has no image in {part}2017")
    return [Pair(path, masks[name], name) for name, path in images.items()]


def _panoptic(root: str, ignore_crowds: bool) -> Data:
    files = {
        part: CocoPanoptic(_needed(root, "panoptic", f"annotations/panoptic_{part}2017.json"))
        for part in PARTS
    }
    known = {
        part: dict(zip(one.category_names, one.category_ids, strict=True)) for part, one in files.items()
    }
    _refuse_other_categories(files, known)
    _say_counts(files)
    splits = {}
    for part, one in files.items():
        # The archive of the PNGs lies beside the JSON file, and is unpacked there or below root.
        name = f"panoptic_{part}2017"
        folder = os.path.join(root, name)
        if not os.path.isdir(folder):
            folder = _needed(root, "panoptic", f"annotations/{name}")
        images = os.path.join(root, f"{part}2017")
        splits[part] = PanopticFiles(one, images, folder, range(len(one)), ignore_crowds)
    first = files["train"]
    names, colours = tuple(first.category_names), tuple(tuple(colour) for colour in first.colours)
    if not 1 <= len(names) <= 255:
        raise DataError(f"{first.path} has {len(names)} categories; allowed: 1 to 255")
    has_colours = len(set(colours)) == len(colours)
    facts = Facts(names, colours if has_colours else _palette(len(names)), things=tuple(first.things))
    return Data(facts, splits)


def _say_counts(parts: Mapping[str, Sized]) -> None:
    say_other_counts("COCO", {part: len(samples) for part, samples in parts.items()}, PUBLISHED)


def _refuse_other_categories(files: dict, known: dict[str, dict[str, int]]) -> None:
    if known["train"] != known["val"]:
        other = sorted(set(known["train"].items()) ^ set(known["val"].items()))
        name, key = other[0]
        raise DataError(
            f"{files['train'].path} and {files['val'].path} differ in {len(other)} categories, {name!r} "
            f"(id {key}) first; they must be those of one data set"
        )


def _needed(root: str, labels: str, path: str) -> str:
    """The path below root; ConfigError if there is nothing."""
    whole = os.path.join(root, path)
    if os.path.exists(whole):
        return whole
    place = os.path.dirname(whole) if os.path.isdir(os.path.dirname(whole)) else root
    content = ", ".join(sorted(os.listdir(place))[:8]) or "nothing"
    raise ConfigError(
        f"data.root={root} has no {path}; expected for data.labels={labels}: {TREE[labels]}; found in "
        f"{place}: {content}"
    )
