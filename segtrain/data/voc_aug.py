"""Pascal VOC 2012 with the training masks of the Semantic Boundaries Dataset (SBD), and the conversion of
those masks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from segtrain.data.files.archives import moved_into, staging
from segtrain.data.parts import Data
from segtrain.data.voc import CLASSES, LISTS, PUBLISHED, Devkit, data_of, read_names
from segtrain.errors import ConfigError, DataError
from segtrain.options import FilePath
from segtrain.run.storage import storage, write_atomic
from segtrain.sample import voc_palette

YEAR = 2012
MASKS = "SegmentationClassAug"
LIST = "train_aug"
SBD = "benchmark_RELEASE/dataset"
ARCHIVE = "benchmark.tgz"
NUM_TRAIN = 10582


def voc_aug(root: FilePath) -> Data:
    """Pascal VOC 2012 with SBD, the training set of the DeepLab papers: 10582 training and 1449 validation
    images, 20 classes of objects and background.

    Hariharan et al.: Semantic contours from inverse detectors, ICCV 2011. Training masks are those of
    SegmentationClassAug, or of SegmentationClass where an image has none there; validation is that of voc.
    Masks of SBD have no void border around objects.

    Options:
        root: folder that holds VOCdevkit/ with SegmentationClassAug/ and ImageSets/Segmentation/train_aug.txt
            in VOC2012, as `segtrain data prepare data=voc_aug` makes them; or VOCdevkit itself, or VOC2012
    """
    devkit = Devkit(root, YEAR)
    for what in (devkit.list_path(LIST), os.path.join(devkit.folder, MASKS)):
        if not os.path.exists(what):
            raise ConfigError(
                f"data.root={root} has no {what}; make it from {ARCHIVE} of SBD with segtrain data prepare "
                f"data=voc_aug data.root={root} archives=FOLDER"
            )
    masks = {**devkit.masks(), **devkit.masks(MASKS)}
    parts = {
        "train": devkit.pairs(devkit.names(LIST), masks),
        "val": devkit.pairs(devkit.names("val")),
    }
    return data_of("VOC 2012 with SBD", parts, {"train": NUM_TRAIN, "val": PUBLISHED[YEAR]["val"]})


@dataclass(frozen=True)
class Conversion:
    """The step of a preparation that makes SegmentationClassAug and train_aug.txt. root: the data set's;
    sbd: the folder dataset/ of SBD."""

    root: Path
    sbd: Path

    def plan(self) -> str:
        return f"convert the masks of {self.sbd}/cls to {MASKS}, and write {LISTS}/{LIST}.txt"

    def run(self, interrupt: Callable[[], None]) -> str:
        """Converts the masks of all images that are not validation images and have no mask of VOC's own.
        Converted files are kept if the conversion is run again."""
        devkit = Devkit(str(self.root), YEAR)
        own, held_out = devkit.names("train"), set(devkit.names("val"))
        listed = [name for part in ("train", "val") for name in read_names(str(self.sbd / f"{part}.txt"))]
        names = [name for name in dict.fromkeys([*listed, *own]) if name not in held_out]
        target = Path(devkit.folder, MASKS)
        made = 0
        with staging(target) as staged:
            for name in tqdm(sorted({*names} - {*own}), unit="mask", desc=MASKS, leave=False, disable=None):
                interrupt()
                if not any((folder / f"{name}.png").exists() for folder in (target, staged)):
                    _write_mask(staged / f"{name}.png", segmentation(self.sbd / "cls" / f"{name}.mat"))
                    made += 1
            moved_into(target, staged)
        write_atomic(devkit.list_path(LIST), "".join(f"{name}\n" for name in sorted(names)).encode())
        return f"{target}: {made} masks of SBD converted; {LISTS}/{LIST}.txt: {len(names)} images"


def segmentation(path: Path) -> np.ndarray:
    """H×W uint8 class indices of a mask of SBD: GTcls.Segmentation of a MATLAB file. DataError if the file
    does not hold it."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ConfigError(
            "masks of SBD are MATLAB files; pip install 'segtrain[sbd]' to read them"
        ) from error
    if not path.is_file():
        raise DataError(f"{path} is missing; unpack {ARCHIVE} again")
    try:
        stored = loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"].item()
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise anything: zlib.error, KeyError, ValueError, TypeError …
        raise DataError(
            f"{path} holds no GTcls.Segmentation ({type(error).__name__}: {error}); unpack {ARCHIVE} again"
        ) from error
    mask = np.asarray(stored)
    if mask.ndim != 2 or mask.dtype.kind not in "ui" or mask.max(initial=0) >= len(CLASSES):
        raise DataError(
            f"{path} holds {mask.dtype} of shape {list(mask.shape)} up to {mask.max(initial=0)} as "
            f"GTcls.Segmentation; expected class indices from 0 to {len(CLASSES) - 1}"
        )
    return mask.astype(np.uint8)


def _write_mask(path: Path, mask: np.ndarray) -> None:
    """Writes a palette PNG with the colours of VOC. A file of that name is complete: it is renamed to it."""
    image = Image.fromarray(mask, mode="P")
    image.putpalette([value for colour in voc_palette(256) for value in colour])
    unfinished = path.with_suffix(".part")
    with storage(path):
        with open(unfinished, "wb") as file:
            image.save(file, "png")
        os.replace(unfinished, path)
