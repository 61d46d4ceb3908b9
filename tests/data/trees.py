"""Miniature data sets in the layouts of the official archives, written with Pillow and SciPy."""

import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 16)
VOC_PALETTE = np.zeros((256, 3), np.uint8)
for _index in range(256):
    for _bit in range(8):
        for _channel in range(3):
            VOC_PALETTE[_index, _channel] |= ((_index >> (3 * _bit + _channel)) & 1) << (7 - _bit)
VOC_2012 = {"train": ("2007_000032", "2007_000039", "2008_000008"), "val": ("2007_000033", "2007_000042")}
VOC_2007 = {"train": ("000032", "000063"), "val": ("000039",), "test": ("000068",)}


def write_palette(path: Path, values: np.ndarray) -> None:
    """A palette PNG with the colours of VOC."""
    image = Image.fromarray(values.astype(np.uint8), mode="P")
    image.putpalette(VOC_PALETTE.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def voc_mask(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes and objects of image `number`: two objects of class 1 + number, each in a void border."""
    classes, objects = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    for index, left in enumerate((1, 9), 1):
        classes[2:10, left : left + 6] = objects[2:10, left : left + 6] = 255
        classes[3:9, left + 1 : left + 5], objects[3:9, left + 1 : left + 5] = 1 + number, index
    return classes, objects


def write_image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(values).save(path)


def write_voc(root: Path, year: int = 2012, parts: dict | None = None, more: tuple[str, ...] = ()) -> Path:
    """VOCdevkit below root. more: names of images without masks."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    parts = parts or {2012: VOC_2012, 2007: VOC_2007}[year]
    number = 0
    for part, names in parts.items():
        for name in names:
            write_image(folder / "JPEGImages" / f"{name}.jpg", number)
            classes, objects = voc_mask(number)
            write_palette(folder / "SegmentationClass" / f"{name}.png", classes)
            write_palette(folder / "SegmentationObject" / f"{name}.png", objects)
            number += 1
        path = folder / "ImageSets" / "Segmentation" / f"{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
    for name in more:
        write_image(folder / "JPEGImages" / f"{name}.jpg", number)
    return folder


def write_voc_aug(root: Path) -> Path:
    """VOCdevkit below root with SegmentationClassAug, as other tools make it."""
    folder = write_voc(root, more=("2008_000002",))
    write_palette(folder / "SegmentationClassAug/2008_000002.png", voc_mask(4)[0])
    names = "\n".join(["2008_000002", *VOC_2012["train"]])
    (folder / "ImageSets/Segmentation/train_aug.txt").write_text(names)
    return folder


def write_ade20k(root: Path) -> Path:
    """ADEChallengeData2016 below root. Image n has stripes of the values 0, n and 150."""
    folder = root / "ADEChallengeData2016"
    for part, short, numbers in (("training", "train", (1, 2, 3)), ("validation", "val", (1, 13))):
        for number in numbers:
            name = f"ADE_{short}_{number:08d}"
            write_image(folder / "images" / part / f"{name}.jpg", number)
            mask = np.repeat([0, number, number, 150], SIZE[1] // 4)[None].repeat(SIZE[0], 0).astype(np.uint8)
            (folder / "annotations" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / "annotations" / part / f"{name}.png")
    return folder


def write_sbd(root: Path, train: dict[str, np.ndarray], val: dict[str, np.ndarray]) -> None:
    """benchmark_RELEASE below root."""
    from scipy.io import savemat

    folder = root / "benchmark_RELEASE" / "dataset"
    for kind in ("cls", "inst", "img"):
        (folder / kind).mkdir(parents=True)
    for part, masks in (("train", train), ("val", val)):
        (folder / f"{part}.txt").write_text("".join(f"{name}\n" for name in masks))
        for name, mask in masks.items():
            content = {"Segmentation": mask, "Boundaries": np.zeros((20, 1)), "CategoriesPresent": 1}
            savemat(folder / "cls" / f"{name}.mat", {"GTcls": content}, do_compression=True)
            write_image(folder / "img" / f"{name}.jpg", 0)


def tar(path: Path, folder: Path, mode: str = "w") -> Path:
    """An archive of what is in a folder."""
    with tarfile.open(path, mode) as archive:
        for entry in sorted(folder.iterdir()):
            archive.add(entry, entry.name)
    return path


def zipped(path: Path, folder: Path, inside: str = "") -> Path:
    """An archive of what is in a folder, with entries for folders, as zip writes them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in sorted(folder.rglob("*")):
            archive.write(entry, inside + str(entry.relative_to(folder)))
    return path
