"""Lists the image files below a folder, in one way for data sets of files and for predictions."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from segtrain.data.files.reading import SUFFIXES
from segtrain.text import count, notice

PICTURES = frozenset(
    f".{kind}"
    for kind in (
        *(
            "arw",
            "avif",
            "bmp",
            "cr2",
            "cr3",
            "dcm",
            "dng",
            "exr",
            "fits",
            "gif",
            "hdr",
            "heic",
            "heif",
            "j2k",
        ),
        *(
            "jfif",
            "jp2",
            "jpe",
            "jpeg",
            "jpg",
            "jxl",
            "mha",
            "nef",
            "nii",
            "npy",
            "nrrd",
            "orf",
            "pbm",
            "pgm",
        ),
        *("png", "pnm", "ppm", "psd", "raf", "raw", "rw2", "svg", "tga", "tif", "tiff", "webp", "xcf"),
    )
)
"""Suffixes of pictures: files of those that cannot be read are counted, where others (texts, tables) are none
of a listing's business."""


class Listing(NamedTuple):
    """files: paths of the image files relative to the folder, with / as separator, sorted. left_out: {suffix:
    number} of pictures that cannot be read."""

    files: list[str]
    left_out: Counter[str]


def list_images(folder: str, skip: Collection[str] = (), suffixes: Collection[str] = SUFFIXES) -> Listing:
    """The image files below a folder, links to folders included. Hidden files and folders (names that begin
    with a dot, such as the ._NAME files of macOS) are left out.

    skip: folders that are not searched. suffixes: of image files.
    """
    files: list[str] = []
    left_out: Counter[str] = Counter()
    done = {os.path.realpath(place) for place in skip}
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if os.path.realpath(place) in done:  # to be skipped, or a link to a folder above
            folders.clear()
            continue
        done.add(os.path.realpath(place))
        below = os.path.relpath(place, folder)
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if suffix in suffixes:
                files.append(os.path.normpath(os.path.join(below, name)).replace(os.sep, "/"))
            elif suffix in PICTURES or name.lower().endswith(".nii.gz"):
                left_out[".nii.gz" if suffix == ".gz" else suffix] += 1
    return Listing(sorted(files), left_out)


def tell_left_out(left_out: Counter[str], where: str) -> None:
    """One notice about pictures that cannot be read, counted by kind; none if there are none."""
    if left_out:
        kinds = ", ".join(f"{number} {suffix}" for suffix, number in left_out.most_common())
        pictures = count(left_out.total(), "picture", "pictures")
        notice(
            f"left out {pictures} of kinds that cannot be read in {where}: {kinds}; convert to "
            f"{', '.join(SUFFIXES)}"
        )
