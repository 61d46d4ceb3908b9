"""Objects of a JSON file in COCO's format, painted into targets.

coco = CocoJson("instances.json")
painting = Painting({key: index for index, key in enumerate(coco.category_ids, 1)})
target, instances = coco.painted(0, painting)
split = CocoObjects(coco, "images", painting, range(len(coco)))
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from segtrain.data.files.coco_content import CocoFile, check_json, object_arrays, pycocotools_mask
from segtrain.data.files.headers import read_headers
from segtrain.data.files.image_hashes import read_hashes
from segtrain.data.files.mapped import mapped_arrays, piece_at, text_at
from segtrain.data.files.pairs import check_inside, on_its_side, prefix_and_number
from segtrain.data.files.reading import MAX_PIXELS, check_depth, check_pixels, read_header, read_image
from segtrain.data.parts import Header, Source, digest_of
from segtrain.errors import DataError
from segtrain.sample import IGNORE, Sample

KIND = "coco_objects_2"  # the number changes with what `object_arrays` returns


@dataclass(frozen=True)
class Painting:
    """How objects become a target.

    class_of: category id -> class index; objects of other categories are left out. background: the target
    where no object is. overlap: `ignore`: pixels of two objects have no label, as in torchvision's
    references; `small_on_top`: they belong to the object of smaller area. crowd: whether the masks of groups
    (iscrowd) are pixels without a label or of the group's class.
    """

    class_of: Mapping[int, int]
    background: int = 0
    overlap: Literal["ignore", "small_on_top"] = "small_on_top"
    crowd: Literal["ignore", "class"] = "ignore"


class Objects(NamedTuple):
    """The objects of an image, in the file's order. categories: int64[n] category ids. crowds: bool[n],
    whether an object is a group. areas: float64[n] px. masks: n compressed RLE strings."""

    categories: np.ndarray
    crowds: np.ndarray
    areas: np.ndarray
    masks: list[bytes]


class CocoJson(CocoFile):
    """The images, categories and objects of a JSON file in COCO's format. Images are in the order of their
    ids.

    What has been read and checked is kept in the user's cache folder by the file's sha256, and shared by all
    processes. DataError if the file is damaged, ConfigError without pycocotools.
    """

    def __init__(self, path: str):
        pycocotools_mask()
        self.path = path
        self._arrays = mapped_arrays(KIND, path, object_arrays, check_json)

    @property
    def num_left_out(self) -> int:
        """Number of annotations without area, which are left out."""
        return int(self._arrays["num_left_out"][0])

    def file_name(self, index: int) -> str:
        """The path of an image, relative to the folder of the images."""
        return text_at(self._arrays["image_names"], self._arrays["image_starts"], index)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of an image, as the file says."""
        height, width = self._arrays["image_sizes"][index].tolist()
        return height, width

    def areas(self, categories: Sequence[int]) -> np.ndarray:
        """float64[N]: the areas of the objects of these categories (ids), summed over each image, in px."""
        kept = np.isin(self._arrays["category_ids"], categories)[self._arrays["object_categories"]]
        image_of = np.repeat(np.arange(len(self)), np.diff(self._arrays["object_starts"]))
        return np.bincount(image_of[kept], self._arrays["object_areas"][kept], minlength=len(self))

    def objects(self, index: int) -> Objects:
        start, end = self._arrays["object_starts"][index : index + 2].tolist()
        categories = self._arrays["category_ids"][self._arrays["object_categories"][start:end]]
        masks = [
            piece_at(self._arrays["masks"], self._arrays["mask_starts"], number)
            for number in range(start, end)
        ]
        crowds = self._arrays["object_crowds"][start:end].astype(bool)
        return Objects(categories, crowds, self._arrays["object_areas"][start:end], masks)

    def painted(self, index: int, painting: Painting) -> tuple[np.ndarray, np.ndarray]:
        """`paint` of the objects of an image."""
        return paint(self.objects(index), self.size(index), painting)


def paint(objects: Objects, size: tuple[int, int], painting: Painting) -> tuple[np.ndarray, np.ndarray]:
    """Target, H×W uint8 class indices, and instances, H×W uint16: the number of an object is its place among
    the painted objects of the image, from 1; groups and pixels without a label have none."""
    masks = pycocotools_mask()
    # W×H, as runs go along the columns.
    target = np.full(size[::-1], painting.background, np.uint8)
    instances = np.zeros(size[::-1], np.uint16)
    covered, twice = np.zeros(size[::-1], bool), np.zeros(size[::-1], bool)
    numbers = _numbers(objects, painting)
    for place in _order(objects, painting):
        rle = {"size": list(size), "counts": objects.masks[place]}
        left, top, width, height = masks.toBbox(rle).astype(int).tolist()
        box = slice(left, left + width), slice(top, top + height)
        mask = masks.decode(rle).T.view(bool)[box]
        ignored = objects.crowds[place] and painting.crowd == "ignore"
        index = IGNORE if ignored else painting.class_of[int(objects.categories[place])]
        np.copyto(target[box], index, where=mask)
        np.copyto(instances[box], numbers[place], where=mask)
        if painting.overlap == "ignore":
            twice[box] |= covered[box] & mask
            covered[box] |= mask
    target[twice], instances[twice] = IGNORE, 0
    return np.ascontiguousarray(target.T), np.ascontiguousarray(instances.T)


def _order(objects: Objects, painting: Painting) -> list[int]:
    """The places of the painted objects: groups first, then others from large to small, equal ones as in the
    file."""
    kept = [place for place, key in enumerate(objects.categories.tolist()) if key in painting.class_of]
    return sorted(kept, key=lambda place: (not objects.crowds[place], -objects.areas[place]))


def _numbers(objects: Objects, painting: Painting) -> list[int]:
    numbers, last = [], 0
    for key, crowd in zip(objects.categories.tolist(), objects.crowds.tolist(), strict=True):
        counts = key in painting.class_of and not crowd
        last += counts
        numbers.append(last if counts else 0)
    return numbers


class CocoObjects:
    """A `Split` of images whose targets are painted from a JSON file in COCO's format.

    folder: where the images are. indices: those images of the file that are samples.
    """

    def __init__(
        self,
        coco: CocoJson,
        folder: str,
        painting: Painting,
        indices: Sequence[int],
        max_pixels: int = MAX_PIXELS,
    ):
        self.coco, self.folder, self.painting, self.max_pixels = coco, folder, painting, max_pixels
        self._indices = np.asarray(indices, np.int32)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        place = self._indices[index]
        path = self._path(place)
        image = read_image(path, self.max_pixels)
        self._check_size(place, image.shape[:2])
        target, instances = self.coco.painted(place, self.painting)
        name = self._stem(place)
        return Sample(image, target, instances, name, prefix_and_number(name)[0])

    def target(self, index: int) -> np.ndarray:
        """H×W uint8 class indices, without reading the image."""
        place = self._indices[index]
        check_pixels(self.name(index), *self.coco.size(place), self.max_pixels)
        return self.coco.painted(place, self.painting)[0]

    def name(self, index: int) -> str:
        return os.path.join(self.folder, self.coco.file_name(self._indices[index]))

    def names_and_groups(self) -> list[tuple[str, str]]:
        """(name, group) of each sample."""
        names = map(self._stem, self._indices)
        return [(name, prefix_and_number(name)[0]) for name in names]

    def image_hashes(self) -> list[str]:
        """A hash of 8 letters for each sample, see `read_hashes`."""
        paths = [self.name(index) for index in range(len(self))]
        return read_hashes(paths, list(map(self._stem, self._indices)))

    def size(self, index: int) -> tuple[int, int]:
        return read_header(self._path(self._indices[index]))[:2]

    def source(self, index: int) -> Source:
        return Source((self.name(index), self.coco.path), f"{self._reading} {self._indices[index]}")

    @functools.cached_property
    def _reading(self) -> str:
        return digest_of(type(self).__name__, self.painting, self.max_pixels)

    def headers(self, indices: Sequence[int]) -> list[Header | DataError]:
        """The header of each image, or a DataError if the image cannot be used: unreadable, too large, or of
        another size than the JSON file says."""
        places = [self._indices[index] for index in indices]
        read = read_headers([self.name(index) for index in indices])
        return [self._checked(place, header) for place, header in zip(places, read, strict=True)]

    def _checked(self, place: int, header: Header | DataError) -> Header | DataError:
        if isinstance(header, DataError):
            return header
        try:
            path = self._path(place)
            check_pixels(path, header.height, header.width, self.max_pixels)
            check_depth(header.dtype, path)
            self._check_size(place, header[:2])
        except DataError as error:
            return error
        return header

    def _stem(self, place: int) -> str:
        return os.path.splitext(self.coco.file_name(place))[0]

    def _path(self, place: int) -> str:
        path = os.path.join(self.folder, self.coco.file_name(place))
        check_inside(path, self.folder)
        return path

    def _check_size(self, place: int, size: tuple[int, int]) -> None:
        if tuple(size) != self.coco.size(place):
            height, width = self.coco.size(place)
            raise DataError(
                f"image {self._path(place)} is {size[0]}x{size[1]} and {self.coco.path} says "
                f"{height}x{width} (height x width); they must be equal; correct or remove one of "
                f"them{on_its_side(size, (height, width))}"
            )
