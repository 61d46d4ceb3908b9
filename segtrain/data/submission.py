"""What the servers of benchmarks take: predicted masks with their names, values, colours and archive."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.data.cityscapes import ARCHIVES, IMAGES, LABELS, by_stem
from segtrain.data.cityscapes import PUBLISHED as CITYSCAPES_PUBLISHED
from segtrain.data.files.official import say_other_counts
from segtrain.data.files.reading import read_header
from segtrain.data.voc import CLASSES, LISTS, Devkit
from segtrain.errors import CheckpointError, ConfigError
from segtrain.run.own import check_below
from segtrain.run.storage import write_atomic, written
from segtrain.sample import voc_palette
from segtrain.text import count

VOC_TEST = {2007: 210, 2012: 1456}
BROKEN = (OSError, EOFError, SyntaxError, zlib.error, zipfile.BadZipFile, tarfile.TarError)
"""What the readers of archives and images raise for a damaged file."""
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time of the files in a zip archive, so that the same masks give the same bytes."""


@dataclass(frozen=True)
class Submission:
    """The masks of a split in the form that a server takes.

    archive: file name. files: {path in the archive: path of the image}. values: the value of each class, by
    name. palette: 256 colours, for palette images; None: grey images.
    """

    archive: str
    files: Mapping[str, str]
    values: Mapping[str, int]
    palette: tuple[tuple[int, int, int], ...] | None = None

    def check_classes(self, classes: Sequence[str], where: str) -> None:
        """ConfigError unless the benchmark knows every class. where: folder of the run."""
        unknown = [name for name in classes if name not in self.values]
        if unknown:
            raise ConfigError(
                f"{where} was trained on {len(classes)} classes, of which the benchmark has no "
                f"{', '.join(map(repr, unknown[:3]))}{' …' if len(unknown) > 3 else ''}; use a run of the "
                f"benchmark's classes: {', '.join(self.values)}"
            )

    def encoded(self, decisions: np.ndarray, classes: Sequence[str]) -> bytes:
        """The PNG of a mask. decisions: H×W indices of `classes`."""
        table = np.array([self.values[name] for name in classes], np.uint8)
        picture = Image.fromarray(table[decisions])
        if self.palette is not None:
            picture.putpalette(np.array(self.palette, np.uint8).tobytes())
        data = io.BytesIO()
        picture.save(data, "PNG")
        return data.getvalue()

    def write(self, output: Path, name: str, png: bytes) -> None:
        """Writes a mask to OUTPUT/NAME. name: a key of `files`."""
        path = output / name
        check_below(output, path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, png)

    def pack(self, output: Path) -> Path:
        """Writes the archive of all masks, which lie in `output`; returns its path."""
        path = output / self.archive
        with written(path) as file:
            if path.suffix == ".zip":
                with zipfile.ZipFile(file, "w") as archive:
                    for name in self.files:
                        archive.writestr(zipfile.ZipInfo(name, LONG_AGO), (output / name).read_bytes())
            else:
                with (
                    gzip.GzipFile(path.stem, "wb", fileobj=file, mtime=0) as packed,
                    tarfile.open(fileobj=packed, mode="w") as archive,
                ):
                    for name in self.files:
                        data = (output / name).read_bytes()
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))
        return path

    def verify(self, path: Path) -> None:
        """Reads the archive again. CheckpointError if names or their number, the size or mode of an image, or
        a value is not as it must be."""
        try:
            with _opened(path) as (names, read):
                if sorted(names) != sorted(self.files):
                    raise _not_as_it_should(
                        path, f"{count(len(names), 'file')} and not the {len(self.files)} of the split"
                    )
                for name, image in self.files.items():
                    self._verify_mask(path, name, image, read(name))
        except BROKEN as error:
            raise _not_as_it_should(path, str(error)) from error

    def _verify_mask(self, path: Path, name: str, image: str, png: bytes) -> None:
        mask = Image.open(io.BytesIO(png))
        wanted = ("PNG", "L" if self.palette is None else "P", read_header(image)[1::-1])
        found = (mask.format, mask.mode, mask.size)
        if found != wanted:
            raise _not_as_it_should(path, f"{name} as {found}, not {wanted}")
        values = set(np.unique(np.asarray(mask)).tolist()) - set(self.values.values())
        if values:
            raise _not_as_it_should(path, f"values {sorted(values)} in {name}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """The names in a zip or tar.gz archive, and a function that reads one of them."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            yield archive.namelist(), archive.read
    else:
        with tarfile.open(path) as archive:
            yield archive.getnames(), lambda name: archive.extractfile(name).read()


def _not_as_it_should(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} was read again and holds {what}; check the disk and write it anew")


def cityscapes(data: Mapping, split: str) -> Submission:
    """Label ids as grey PNGs CITY_SEQUENCE_FRAME_leftImg8bit.png in a zip archive, for the pixel-level task.

    data: config of the data set. ConfigError if there are no such images. The images need no annotations."""
    folder = os.path.join(_root(data), IMAGES, split)
    if not os.path.isdir(folder):
        raise ConfigError(
            f"data.root={data['root']} has no folder {IMAGES}/{split}, which {ARCHIVES[IMAGES]} holds"
        )
    images = by_stem(folder, f"_{IMAGES}.png")
    say_other_counts("Cityscapes", {split: len(images)}, CITYSCAPES_PUBLISHED)
    files = {f"{name.split('/')[-1]}_{IMAGES}.png": path for name, path in images.items()}
    return Submission(f"cityscapes_{split}.zip", _some(files, folder), {one.name: one.id for one in LABELS})


def voc(data: Mapping, split: str) -> Submission:
    """Palette PNGs results/VOC2012/Segmentation/comp6_test_cls/NAME.png in a tar.gz archive. The images are
    those of ImageSets/Segmentation/test.txt and need no masks; arguments as for `cityscapes`."""
    year = data.get("year", 2012)
    devkit = Devkit(_root(data), year)
    if not os.path.isfile(devkit.list_path(split)):
        raise ConfigError(
            f"{devkit.folder} has no {LISTS}/{split}.txt; the images and lists of the test split are an "
            f"archive of their own, which the server of VOC gives to registered users"
        )
    images = devkit.images(devkit.names(split))
    if split == "test":
        say_other_counts(f"VOC {year}", {split: len(images)}, {"test": VOC_TEST[year]})
    folder = f"results/VOC{year}/Segmentation/comp6_{split}_cls"
    files = {f"{folder}/{name}.png": path for name, path in images.items()}
    values = {name: index for index, name in enumerate(CLASSES)}
    return Submission(f"voc{year}_{split}.tar.gz", _some(files, devkit.folder), values, voc_palette(256))


def _root(data: Mapping) -> str:
    if not data.get("root"):
        raise ConfigError(
            f"data={data['name']} has no data.root with the images of a benchmark; choose data=cityscapes or "
            f"data=voc with its data.root"
        )
    return data["root"]


def _some(files: dict[str, str], folder: str) -> dict[str, str]:
    if not files:
        raise ConfigError(f"{folder} holds no image of this split; unpack the official archive again")
    return files


SUBMISSIONS: dict[str, Callable[[Mapping, str], Submission]] = {"cityscapes": cityscapes, "voc": voc}
"""By format: (config of the data set, split) -> what is to be submitted."""
FORMAT_OF = {"cityscapes": "cityscapes", "voc": "voc", "voc_aug": "voc"}
"""The format of the benchmark that a data set belongs to."""
