"""The preparation of data sets: their official archives are unpacked where the data sets look for them, and
what is not read as it is gets converted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from segtrain.data.files.archives import check_space, unpack
from segtrain.data.voc import LISTS, TEST, TRAINVAL
from segtrain.data.voc_aug import ARCHIVE, LIST, MASKS, SBD, YEAR, Conversion
from segtrain.errors import ConfigError
from segtrain.run.storage import in_words
from segtrain.text import count, notice


class Step(Protocol):
    """One step of a preparation. A step that is done is not done again."""

    def plan(self) -> str:
        """The line that says what `run` will do. ConfigError if an archive is missing."""

    def run(self, interrupt: Callable[[], None]) -> str:
        """Does it, and returns the line that says what was done. interrupt: called often, may raise."""


@dataclass(frozen=True)
class Unpacking:
    """An archive that is unpacked.

    archive: its file name; folder: where it lies; into: where its content belongs. holds: what is below
    `into` afterwards, which makes the archive needless if it is there. page: where to download it. needed:
    whether it is an error if neither the archive nor its content is there. inner: whether an earlier step
    makes the archive. takes, strip: as for `unpack`.
    """

    archive: str
    folder: Path
    into: Path
    holds: tuple[str, ...]
    page: str
    max_bytes: int
    needed: bool = True
    inner: bool = False
    takes: tuple[str, ...] = ("",)
    strip: str = ""

    @property
    def path(self) -> Path:
        return self.folder / self.archive

    def plan(self) -> str:
        if self.path.is_file():
            return f"unpack {self.path} ({in_words(self.path.stat().st_size)}) into {self.into}"
        if all((self.into / part).exists() for part in self.holds):
            return f"{self.archive}: its content is in {self.into} already"
        if self.inner:
            return f"unpack {self.path}, once it is there, into {self.into}"
        if not self.needed:
            return f"{self.archive}: left out, it is not in {self.folder}"
        raise ConfigError(
            f"{self.path} does not exist, and {self.into} has no {self.holds[0]}, which it holds; download "
            f"{self.archive} from {self.page} and set archives to its folder"
        )

    def run(self, interrupt: Callable[[], None]) -> str:
        if not self.path.is_file():
            return self.plan()
        check_space(self.path, self.into)
        counts = unpack(self.path, self.into, self.max_bytes, self.takes, self.strip, interrupt)
        if counts.other:
            notice(
                f"{counts.other} has another size than in {self.archive}, and is kept; to have that of the "
                f"archive, remove it and repeat the command"
            )
        kept = f", {counts.kept} were there already" if counts.kept else ""
        return f"{self.archive}: {count(counts.new, 'file')} unpacked into {self.into}{kept}"


@dataclass(frozen=True)
class Places:
    """root: the data set's folder. archives: the folder of the archives. max_bytes: how much the files of one
    archive may take."""

    root: Path
    archives: Path
    max_bytes: int

    def unpacking(self, archive: str, holds: tuple[str, ...], page: str, into: str = "", **options):
        """The step for an archive whose content belongs into a folder below root."""
        folder = options.pop("folder", self.archives)
        return Unpacking(archive, folder, self.root / into, holds, page, self.max_bytes, **options)


VOC_PAGE = "host.robots.ox.ac.uk/pascal/VOC"
SBD_PAGE = "www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours"
CITYSCAPES_PAGE = "www.cityscapes-dataset.com/downloads (an account is needed)"
ADE20K_PAGE = "sceneparsing.csail.mit.edu"
COCO_PAGE = "cocodataset.org/#download"
STUFF_PAGE = "github.com/nightrome/cocostuff"


def prepare_voc(options: Mapping, places: Places) -> list[Step]:
    """VOCtrainval of the year, and VOCtest of 2007."""
    year = options.get("year", YEAR)
    folder, strip = _devkit(places.root, year)
    lists, masks = f"{folder}{LISTS}", f"{folder}SegmentationClass"
    steps: list[Step] = [
        places.unpacking(TRAINVAL[year], (masks, f"{lists}/train.txt"), VOC_PAGE, strip=strip)
    ]
    if year in TEST:
        tests = (f"{lists}/test.txt",)
        steps.append(places.unpacking(TEST[year], tests, VOC_PAGE, strip=strip, needed=False))
    return steps


def prepare_voc_aug(options: Mapping, places: Places) -> list[Step]:
    """VOC 2012, the masks and lists of SBD, and their conversion."""
    folder, _ = _devkit(places.root, YEAR)
    made = (f"{folder}{MASKS}", f"{folder}{LISTS}/{LIST}.txt")
    steps = prepare_voc({}, places)
    if all((places.root / part).exists() for part in made) and not (places.archives / ARCHIVE).is_file():
        return steps
    holds = tuple(f"{SBD}/{part}" for part in ("cls", "train.txt", "val.txt"))
    sbd = places.unpacking(ARCHIVE, holds, SBD_PAGE, takes=holds)
    return [*steps, sbd, Conversion(places.root, places.root / SBD)]


def prepare_cityscapes(options: Mapping, places: Places) -> list[Step]:
    """Images and annotations of Cityscapes; those that data.train does not ask for are unpacked if they are
    there."""
    train = options.get("train", "fine")

    def unpacking(archive: str, kind: str, *parts: str, needed: bool = True) -> Step:
        holds = tuple(f"{kind}/{part}" for part in parts)
        takes = (f"{kind}/", "license.txt")  # not README, which each archive has another of
        return places.unpacking(archive, holds, CITYSCAPES_PAGE, needed=needed, takes=takes)

    return [
        unpacking("leftImg8bit_trainvaltest.zip", "leftImg8bit", "train", "val"),
        unpacking("gtFine_trainvaltest.zip", "gtFine", "train", "val"),
        unpacking("gtCoarse.zip", "gtCoarse", "train", needed=train != "fine"),
        unpacking("leftImg8bit_trainextra.zip", "leftImg8bit", "train_extra", needed=train == "coarse_extra"),
    ]


def prepare_ade20k(options: Mapping, places: Places) -> list[Step]:
    """The archive of the scene parsing challenge."""
    name = "ADEChallengeData2016"
    inside = os.path.basename(os.path.abspath(places.root)) == name
    folder, strip = ("", f"{name}/") if inside else (f"{name}/", "")
    holds = tuple(
        f"{folder}{kind}/{part}" for kind in ("images", "annotations") for part in ("training", "validation")
    )
    return [places.unpacking(f"{name}.zip", holds, ADE20K_PAGE, strip=strip)]


def prepare_coco(options: Mapping, places: Places) -> list[Step]:
    """Images and the annotations of data.labels; other annotations are unpacked if their archives are
    there."""
    labels = options.get("labels", "instances")
    steps: list[Step] = [
        places.unpacking("train2017.zip", ("train2017",), COCO_PAGE),
        places.unpacking("val2017.zip", ("val2017",), COCO_PAGE),
        places.unpacking(
            "annotations_trainval2017.zip",
            ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
            COCO_PAGE,
            needed=labels == "instances",
        ),
        places.unpacking(
            "stuffthingmaps_trainval2017.zip",
            ("train2017", "val2017"),
            STUFF_PAGE,
            into="stuffthingmaps",
            needed=labels == "stuff",
        ),
        places.unpacking(
            "panoptic_annotations_trainval2017.zip",
            ("annotations/panoptic_train2017.json", "annotations/panoptic_val2017.json"),
            COCO_PAGE,
            needed=labels == "panoptic",
        ),
    ]
    if (places.archives / "panoptic_annotations_trainval2017.zip").is_file():
        folder = places.root / "annotations"  # the archive holds two archives of masks
        steps += [
            places.unpacking(
                f"panoptic_{part}2017.zip",
                (f"panoptic_{part}2017",),
                COCO_PAGE,
                into="annotations",
                folder=folder,
                inner=True,
            )
            for part in ("train", "val")
        ]
    return steps


def _devkit(root: Path, year: int) -> tuple[str, str]:
    """The folder VOC2012 below a root, with a slash at its end, and the leading folders that the archive's
    names have more than those below the root."""
    whole = f"VOCdevkit/VOC{year}/"
    name = os.path.basename(os.path.abspath(root))
    if name == f"VOC{year}":
        return "", whole
    if name == "VOCdevkit":
        return f"VOC{year}/", "VOCdevkit/"
    return whole, ""


PREPARE: dict[str, Callable[[Mapping, Places], list[Step]]] = {
    "ade20k": prepare_ade20k,
    "cityscapes": prepare_cityscapes,
    "coco": prepare_coco,
    "voc": prepare_voc,
    "voc_aug": prepare_voc_aug,
}
"""The steps of each data set that has official archives, from its options and the folders."""
