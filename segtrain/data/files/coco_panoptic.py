"""Panoptic annotations in COCO's format: PNGs of segment numbers, and a JSON file that says what they are."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from segtrain.data.files.coco_content import (
    MAX_OBJECTS,
    Arrays,
    CocoFile,
    category_arrays,
    check_file_name,
    check_json,
    crowd_of,
    image_arrays,
    index_of,
    integer_of,
    read_json,
    text_of,
)
from segtrain.data.files.labels import Labels
from segtrain.data.files.mapped import mapped_arrays, text_at, texts
from segtrain.data.files.pairs import Pair, PairedFiles, check_same_size
from segtrain.data.files.reading import MAX_PIXELS, read_image, read_mask
from segtrain.data.parts import Source
from segtrain.errors import DataError
from segtrain.sample import IGNORE, Sample

KIND = "coco_panoptic_1"  # the number changes with what `segment_arrays` returns
MAX_ID = (1 << 24) - 1


def segment_arrays(path: str) -> Arrays:
    """The arrays of a panoptic JSON file: those of `category_arrays` and `image_arrays`, the names of the
    PNGs in the order of the images, and of each segment, ordered by image:

    segment_starts int64[N+1] (the segments of image i are starts[i] to starts[i+1]), segment_ids int32,
    segment_categories int32 (index into category_ids), segment_crowds uint8.
    """
    whole = read_json(path, ("images", "annotations", "categories"))
    arrays = category_arrays(path, whole["categories"]) | image_arrays(path, whole["images"])
    images = {key: index for index, key in enumerate(arrays["image_ids"].tolist())}
    categories = {key: index for index, key in enumerate(arrays["category_ids"].tolist())}
    found: list[tuple[str, list] | None] = [None] * len(images)
    for number, annotation in enumerate(whole["annotations"]):
        where = f"{path}: annotation {number}"
        image = index_of(annotation, "image_id", images, where)
        name = text_of(annotation, "file_name", where)
        check_file_name(name, where)
        if found[image] is not None:
            raise DataError(f"{where} ({name}) is the second one of its image; each image has one")
        found[image] = name, _segments(annotation, categories, f"{where} ({name})")
    if None in found:
        name = text_at(arrays["image_names"], arrays["image_starts"], found.index(None))
        raise DataError(f"{path} has no annotation of {found.count(None)} images, {name} first")
    rows = [row for _, segments in found for row in segments]
    joined, starts = texts([name for name, _ in found])
    counts = [len(segments) for _, segments in found]
    columns = np.array(rows, np.int32).reshape(-1, 3)
    return arrays | {
        "png_names": joined,
        "png_starts": starts,
        "segment_starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "segment_ids": columns[:, 0],
        "segment_categories": columns[:, 1],
        "segment_crowds": columns[:, 2].astype(np.uint8),
    }


def _segments(annotation: dict, categories: dict[int, int], where: str) -> list[tuple[int, int, int]]:
    """(id, index of the category, 1 for a group of objects) of each segment."""
    listed = annotation.get("segments_info")
    if not isinstance(listed, list) or len(listed) > MAX_OBJECTS:
        raise DataError(f"{where} has no list segments_info of at most {MAX_OBJECTS} segments")
    rows = []
    for number, segment in enumerate(listed):
        inside = f"{where}, segment {number}"
        key = integer_of(segment, "id", inside)
        if not 0 < key <= MAX_ID:
            raise DataError(f"{inside} has the id {key}; allowed: 1 to {MAX_ID}")
        rows.append((key, index_of(segment, "category_id", categories, inside), crowd_of(segment, inside)))
    if len({row[0] for row in rows}) < len(rows):
        raise DataError(f"{where} has two segments of one id")
    return rows


class CocoPanoptic(CocoFile):
    """The images, categories and segments of a panoptic JSON file. Images are in the order of their ids.

    Like `CocoJson` it is read once, kept in the user's cache folder, and shared by all processes.
    """

    def __init__(self, path: str):
        self.path = path
        self._arrays = mapped_arrays(KIND, path, segment_arrays, check_json)

    @property
    def things(self) -> list[int]:
        """The class indices of countable objects."""
        return np.flatnonzero(self._arrays["category_things"]).tolist()

    @property
    def colours(self) -> list[list[int]]:
        """The RGB colour of each class; all 0 where the file gives none."""
        return self._arrays["category_colours"].tolist()

    def file_names(self, index: int) -> tuple[str, str]:
        """The paths of an image and of its PNG, each relative to its folder."""
        image = text_at(self._arrays["image_names"], self._arrays["image_starts"], index)
        return image, text_at(self._arrays["png_names"], self._arrays["png_starts"], index)

    def decoded(
        self, index: int, stored: np.ndarray, path: str, ignore_crowds: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Target, H×W uint8 class indices, and instances, H×W uint16: the number of an object is its place
        among the single objects of the image, from 1.

        stored: H×W×3 uint8, the pixels of the PNG `path`, whose segment is R + 256·G + 65536·B, and 0 where
        unlabelled. ignore_crowds: groups of objects have no label. DataError for segments that the JSON file
        does not list.
        """
        if stored.ndim != 3 or stored.dtype != np.uint8:
            raise DataError(
                f"{path} is not an RGB image of 8 bits a channel, which holds numbers of segments"
            )
        start, end = self._arrays["segment_starts"][index : index + 2].tolist()
        ids = np.concatenate([np.zeros(1, np.int32), self._arrays["segment_ids"][start:end]])
        crowds = self._arrays["segment_crowds"][start:end] == 1
        categories = self._arrays["segment_categories"][start:end]
        classes = np.where(crowds & ignore_crowds, IGNORE, categories)
        single = (self._arrays["category_things"][categories] == 1) & ~crowds
        numbers = np.where(single, np.cumsum(single), 0)
        codes = stored.astype(np.int32) @ np.array([1, 256, 65536], np.int32)  # H×W×3 -> H×W
        order = np.argsort(ids)
        place = order[np.minimum(np.searchsorted(ids[order], codes), len(ids) - 1)]
        if (wrong := ids[place] != codes).any():
            raise self._unknown(codes[wrong], path)
        return (
            np.concatenate([[IGNORE], classes]).astype(np.uint8)[place],
            np.concatenate([[0], numbers]).astype(np.uint16)[place],
        )

    def _unknown(self, codes: np.ndarray, path: str) -> DataError:
        values, counts = np.unique(codes, return_counts=True)
        listed = ", ".join(
            f"{value} ({pixels} px)" for value, pixels in zip(values[:5], counts, strict=False)
        )
        more = f" and {len(values) - 5} more" if len(values) > 5 else ""
        return DataError(f"{path} holds the segments {listed}{more}, which {self.path} does not list for it")


class PanopticFiles(PairedFiles):
    """A `Split` of images and panoptic PNGs.

    images, pngs: their folders. indices: those images of the JSON file that are samples.
    """

    def __init__(
        self,
        panoptic: CocoPanoptic,
        images: str,
        pngs: str,
        indices: Sequence[int],
        ignore_crowds: bool = True,
        max_pixels: int = MAX_PIXELS,
    ):
        names = [panoptic.file_names(index) for index in indices]
        pairs = [
            Pair(os.path.join(images, image), os.path.join(pngs, png), os.path.splitext(image)[0])
            for image, png in names
        ]
        super().__init__(pairs, Labels(len(panoptic.category_names)), max_pixels)
        self.panoptic, self._indices, self._ignore_crowds = panoptic, list(indices), ignore_crowds

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image = read_image(pair.image, self.max_pixels)
        target, instances = self._decoded(index)
        check_same_size(pair, image.shape[:2], target.shape)
        return Sample(image, target, instances, pair.name, pair.group)

    def source(self, index: int) -> Source:
        files, reading = super().source(index)
        return Source((*files, self.panoptic.path), f"{reading} {self._indices[index]} {self._ignore_crowds}")

    def target(self, index: int) -> np.ndarray:
        return self._decoded(index)[0]

    def _decoded(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        path = self.pairs[index].mask
        stored = read_mask(path, self.max_pixels)
        return self.panoptic.decoded(self._indices[index], stored, path, self._ignore_crowds)
