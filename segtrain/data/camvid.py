"""CamVid with 11 classes."""

from __future__ import annotations

import os
from typing import Literal

from segtrain.data.files.labels import Labels
from segtrain.data.files.pairs import Pair, PairedFiles, find_images
from segtrain.data.parts import Data
from segtrain.errors import ConfigError, DataError
from segtrain.options import FilePath
from segtrain.sample import Facts
from segtrain.text import count

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
PALETTE = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)
THINGS = (8, 9, 10)
DRIVES = {"train": ("0016E5", "0001TP"), "val": ("0006R0",)}


def camvid(root: FilePath, split: Literal["standard", "drive"] = "standard") -> Data:
    """CamVid street scenes, 11 classes, 480x360: 367 training, 101 validation and 233 test frames.

    Brostow, Fauqueur, Cipolla: Semantic object classes in video, PRL 2009; classes as in Badrinarayanan et
    al., SegNet, TPAMI 2017. The group of a sample is its drive.

    Options:
        root: folder that holds images/{train,val}/NAME.jpg and masks/{train,val}/NAME.png (values 0..10, 255
            without label), and the same of test if there is such a split
        split: standard: the published split, whose validation frames are 7 seconds out of a training drive;
            drive: train on drives 0016E5 and 0001TP, validate on 0006R0, all from images/train
    """
    folders = {part: _pairs(root, part) for part in ("train", "val")}
    if split == "standard" and os.path.isdir(os.path.join(root, "images", "test")):
        folders["test"] = _pairs(root, "test")
    if split == "drive":
        folders = {part: [pair for pair in folders["train"] if pair.group in DRIVES[part]] for part in DRIVES}
    for part, pairs in folders.items():
        if not pairs:
            raise DataError(
                f"CamVid in {root} has no frame for the {part} part of data.split={split}; expected names "
                f"such as 0016E5_07959.jpg"
            )
    labels = Labels(len(CLASSES), fixed=True)
    facts = Facts(classes=CLASSES, palette=PALETTE, things=THINGS)
    return Data(facts, {part: PairedFiles(pairs, labels) for part, pairs in folders.items()})


def _pairs(root: str, part: str) -> list[Pair]:
    found = {kind: find_images(_folder(root, kind, part), root) for kind in ("images", "masks")}
    lonely = sorted(set(found["images"]) ^ set(found["masks"]))
    if lonely:
        shown = ", ".join(lonely[:5])
        frames = count(len(lonely), f"frame of {part} has", f"frames of {part} have")
        raise DataError(f"CamVid in {root}: {frames} an image or a mask only: {shown}; add or remove them")
    return [
        Pair(path, found["masks"][name], name, name.split("_")[0]) for name, path in found["images"].items()
    ]


def _folder(root: str, kind: str, part: str) -> str:
    folder = os.path.join(root, kind, part)
    if os.path.isdir(folder):
        return folder
    if not os.path.isdir(root):
        raise ConfigError(
            f"data.root is {root!r}, which is not a folder; it holds images/{{train,val}} and "
            f"masks/{{train,val}}"
        )
    content = ", ".join(sorted(os.listdir(root))[:8]) or "nothing"
    raise ConfigError(
        f"data.root={root} has no folder {kind}/{part}; expected: images/{{train,val}} and "
        f"masks/{{train,val}}; found: {content}"
    )
