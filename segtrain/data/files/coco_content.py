"""The checked content of JSON files in COCO's format, as arrays for `mapped_arrays`.

Nothing in such a file is trusted: every number is checked before pycocotools, which checks little, sees it.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from segtrain.data.files.mapped import pieces, text_at, texts
from segtrain.errors import ConfigError, DataError
from segtrain.run.own import parsed
from segtrain.text import notice

MAX_BYTES = 2 << 30  # of a JSON file; that of COCO's 118 287 training images has 448 MB
LONG = 100 << 20  # bytes that take several seconds to parse
MAX_SIDE = 1 << 16  # px
MAX_OBJECTS = 65535  # of an image: numbers of objects are uint16
BIGGEST = 2**63  # first number that an int64 cannot hold

Arrays = dict[str, np.ndarray]


class CocoFile:
    """The images and categories of a JSON file, in arrays that all processes share."""

    _arrays: Arrays

    def __len__(self) -> int:
        return len(self._arrays["image_sizes"])

    @property
    def category_ids(self) -> list[int]:
        """The ids of the categories, ascending."""
        return self._arrays["category_ids"].tolist()

    @property
    def category_names(self) -> list[str]:
        """The names of the categories, in the order of `category_ids`."""
        joined, starts = self._arrays["category_names"], self._arrays["category_starts"]
        return [text_at(joined, starts, index) for index in range(len(starts) - 1)]


def pycocotools_mask():
    """The module pycocotools.mask. ConfigError if the package is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ConfigError(
            f"annotations in COCO's format need the package pycocotools ({error}); "
            f"pip install 'segtrain[coco]'"
        ) from error
    return mask


def check_json(path: str) -> None:
    """DataError unless the file is a regular one of at most MAX_BYTES."""
    try:
        state = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(state.st_mode):
        raise DataError(f"{path} is not a regular file; expected a JSON file in COCO's format")
    if state.st_size > MAX_BYTES:
        raise DataError(
            f"{path} has {state.st_size} bytes; allowed: {MAX_BYTES}; divide it into several files"
        )


def read_json(path: str, lists: Iterable[str]) -> dict:
    """The JSON object of a file, which holds `lists`. DataError for anything else."""
    if os.path.getsize(path) > LONG:
        notice(f"reading {path} once …")
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    try:
        whole = parsed(content)
    except ValueError as error:  # also UnicodeDecodeError
        raise DataError(
            f"{path} is not JSON ({error}); it begins with {content[:40]!r}; expected annotations in COCO's "
            f"format; load the file again"
        ) from error
    for name in lists:
        if not isinstance(whole, dict) or not isinstance(whole.get(name), list):
            raise DataError(
                f"{path} has no list {name!r} at its top level; expected annotations in COCO's format: "
                f"{', '.join(lists)}"
            )
    return whole


def category_arrays(path: str, categories: list) -> Arrays:
    """category_ids int64[C] in ascending order, their names, whether they are things (uint8[C], 1 unless the
    file says no), and colours uint8[C, 3] (0 where the file has none)."""
    ids, names, rows = set(), set(), []
    for number, category in enumerate(categories):
        where = f"{path}: category {number}"
        key, name = integer_of(category, "id", where), text_of(category, "name", where)
        if key in ids or name in names:
            raise DataError(f"{where} has the id {key} and the name {name!r}, one of which occurs twice")
        ids.add(key)
        names.add(name)
        colour = category.get("color")
        is_colour = isinstance(colour, list) and len(colour) == 3 and all(map(_is_byte, colour))
        rows.append((key, name, category.get("isthing", 1) != 0, colour if is_colour else [0, 0, 0]))
    rows.sort()
    joined, starts = texts([row[1] for row in rows])
    return {
        "category_ids": np.array([row[0] for row in rows], np.int64),
        "category_names": joined,
        "category_starts": starts,
        "category_things": np.array([row[2] for row in rows], np.uint8),
        "category_colours": np.array([row[3] for row in rows], np.uint8).reshape(-1, 3),
    }


def image_arrays(path: str, images: list) -> Arrays:
    """image_ids int64[N] in ascending order, image_sizes int32[N, 2] (height, width), and the file names."""
    rows = []
    for number, image in enumerate(images):
        where = f"{path}: image {number}"
        key, name = integer_of(image, "id", where), text_of(image, "file_name", where)
        check_file_name(name, where)
        height, width = integer_of(image, "height", where), integer_of(image, "width", where)
        if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
            raise DataError(f"{where} ({name}) is {height}x{width}; allowed: 1 to {MAX_SIDE} pixels a side")
        rows.append((key, name, height, width))
    if not rows:
        raise DataError(f"{path} lists no image")
    rows.sort()
    _refuse_twice(path, "id", [row[0] for row in rows])
    _refuse_twice(path, "file_name", [row[1] for row in rows])
    joined, starts = texts([row[1] for row in rows])
    return {
        "image_ids": np.array([row[0] for row in rows], np.int64),
        "image_sizes": np.array([row[2:] for row in rows], np.int32),
        "image_names": joined,
        "image_starts": starts,
    }


def check_file_name(name: str, where: str) -> None:
    """DataError unless `name` is a path below the folder of the images."""
    parts = re.split(r"[/\\]", name)
    if "\0" in name or ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", name):
        raise DataError(
            f"{where} has the file_name {name!r}; allowed: paths below the folder of the images, without '..'"
        )


def object_arrays(path: str) -> Arrays:
    """The arrays of a file of instances: those of `category_arrays` and `image_arrays`, and of each object,
    ordered by image:

    object_starts int64[N+1] (the objects of image i are starts[i] to starts[i+1]), object_categories int32
    (index into category_ids), object_crowds uint8, object_areas float64 (px; as the file says, else that of
    the mask), and the masks as COCO's compressed RLE strings. Annotations without area (boxes, lines, points)
    are left out; num_left_out int64[1] counts them. DataError if none has an area.
    """
    whole = read_json(path, ("images", "annotations", "categories"))
    categories = without_unused_twins(whole["categories"], whole["annotations"])
    arrays = category_arrays(path, categories) | image_arrays(path, whole["images"])
    images = {key: index for index, key in enumerate(arrays["image_ids"].tolist())}
    categories = {key: index for index, key in enumerate(arrays["category_ids"].tolist())}
    sizes = arrays["image_sizes"].tolist()
    rows, left_out = [], []
    description = f"reading {os.path.basename(path)}"
    for number, annotation in enumerate(
        tqdm(whole["annotations"], unit="object", desc=description, delay=1, leave=False, disable=None)
    ):
        where = _where(path, number, annotation)
        image = index_of(annotation, "image_id", images, where)
        category = index_of(annotation, "category_id", categories, where)
        crowd = crowd_of(annotation, where)
        segmentation = with_area(annotation.get("segmentation"))
        if segmentation is None:
            left_out.append(where)
            continue
        mask = rle_of(segmentation, *sizes[image], where)
        rows.append((image, category, crowd, _area(annotation, mask, sizes[image]), mask))
    if left_out and not rows:
        raise DataError(
            f"{left_out[0]} has a segmentation without area, as all others; annotations that are only boxes "
            f"have no masks"
        )
    rows.sort(key=lambda row: row[0])
    of_image = np.array([row[0] for row in rows], np.int64)
    starts = np.searchsorted(of_image, np.arange(len(sizes) + 1))
    if len(rows) and np.diff(starts).max() > MAX_OBJECTS:
        raise DataError(f"{path} has an image of {np.diff(starts).max()} objects; allowed: {MAX_OBJECTS}")
    masks, mask_starts = pieces([row[4] for row in rows])
    return arrays | {
        "object_starts": starts.astype(np.int64),
        "object_categories": np.array([row[1] for row in rows], np.int32),
        "object_crowds": np.array([row[2] for row in rows], np.uint8),
        "object_areas": np.array([row[3] for row in rows], np.float64),
        "masks": masks,
        "mask_starts": mask_starts,
        "num_left_out": np.array([len(left_out)], np.int64),
    }


def without_unused_twins(categories: list, annotations: list) -> list:
    """The categories without those that share their name with another one and that no annotation has, such as
    the category 0 that Roboflow adds under the name of the project."""
    used = {id_of(one, "category_id") for one in annotations}
    names = Counter(repr(one.get("name")) for one in categories if isinstance(one, dict))
    return [
        one
        for one in categories
        if not isinstance(one, dict) or names[repr(one.get("name"))] < 2 or id_of(one, "id") in used
    ]


def id_of(entry: object, key: str) -> int | None:
    """The integer entry[key]; None if there is none."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if type(value) is int else None


def with_area(segmentation: object) -> object:
    """The segmentation without polygons of fewer than three points; None if nothing is left. What is damaged
    stays, see `rle_of`."""
    if not isinstance(segmentation, list):
        return segmentation
    kept = [one for one in segmentation if not _is_line(one)]
    return kept or None


def _is_line(polygon: object) -> bool:
    """Whether a polygon has no, one or two points."""
    points = _numbers(polygon, "iuf")
    return polygon == [] or (points is not None and len(points) in (2, 4))


def rle_of(segmentation: object, height: int, width: int, where: str) -> bytes:
    """The compressed RLE string of a segmentation, as pycocotools makes it: of polygons their union, of
    run lengths (RLE as a list or a string) the same runs. DataError, which begins with `where`, if the
    segmentation is damaged."""
    if isinstance(segmentation, list):
        return _polygons(segmentation, height, width, where)
    if not isinstance(segmentation, dict):
        raise DataError(
            f"{where} has the segmentation {_short(segmentation)}; expected polygons or an RLE; annotations "
            f"that are only boxes have no masks"
        )
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise DataError(f"{where} has an RLE of size {_short(size)}; its image is [{height}, {width}]")
    if isinstance(counts, list):
        _check_runs(_numbers(counts, "iu"), height * width, where)
        return pycocotools_mask().frPyObjects({"size": size, "counts": counts}, height, width)["counts"]
    try:
        text = counts.encode("ascii")
        runs = run_lengths(text)
    except (AttributeError, ValueError) as error:
        raise DataError(f"{where} has an RLE whose counts cannot be read: {_short(counts)}") from error
    _check_runs(runs, height * width, where)
    return text


def run_lengths(text: bytes) -> np.ndarray:
    """int64 run lengths of COCO's compressed RLE string, background first. ValueError for a damaged string.

    Six bits a character, from 48 on: five of the number, lowest first, and one that says that more follow.
    From the fourth number on the difference to the last but one is stored (maskApi.c, rleToString).
    """
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("not an RLE")
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    if digits.max() > 7:  # more than 32 bits
        raise ValueError("not an RLE")
    place = np.arange(len(codes)) - np.repeat(starts, digits)
    numbers = np.add.reduceat((codes & 31) << (5 * place), starts)
    numbers -= np.where(codes[ends] & 16, np.int64(1) << (5 * digits), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _check_runs(runs: np.ndarray | None, pixels: int, where: str) -> None:
    if runs is None or not len(runs) or runs.min() < 0 or runs.max() > pixels or runs.sum() != pixels:
        total = "no integers" if runs is None else f"run lengths that sum to {int(runs.sum())}"
        raise DataError(f"{where} has an RLE of {total}; its image has {pixels} pixels")


def _polygons(polygons: list, height: int, width: int, where: str) -> bytes:
    if not polygons:
        raise DataError(f"{where} has an empty segmentation; annotations that are only boxes have no masks")
    for polygon in polygons:
        points = _numbers(polygon, "iuf")
        # pycocotools takes four numbers for a box.
        if points is None or len(points) < 6 or len(points) % 2:
            raise DataError(
                f"{where} has the polygon {_short(polygon)}; expected [x1, y1, x2, y2, x3, y3 …] of at least "
                f"three points"
            )
        side = max(height, width)
        if not (np.isfinite(points).all() and points.min() >= -side and points.max() <= 2 * side):
            raise DataError(
                f"{where} has a polygon from {points.min()} to {points.max()}, far outside of its image of "
                f"{height}x{width}"
            )
    masks = pycocotools_mask()
    rles = masks.frPyObjects(polygons, height, width)
    return (rles[0] if len(rles) == 1 else masks.merge(rles))["counts"]


def _numbers(values: object, kinds: str) -> np.ndarray | None:
    """The list as an array; None if it is not a flat list of numbers of these kinds."""
    if not isinstance(values, list) or not values:
        return None
    try:
        array = np.array(values)
    except ValueError:  # lists of different lengths
        return None
    return array if array.ndim == 1 and array.dtype.kind in kinds else None


def crowd_of(annotation: dict, where: str) -> int:
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise DataError(f"{where} has iscrowd {_short(crowd)}; allowed: 0, 1")
    return int(crowd)


def _area(annotation: dict, mask: bytes, size: list[int]) -> float:
    area = annotation.get("area")
    if type(area) in (int, float) and 0 < area < BIGGEST and math.isfinite(area):
        return float(area)
    return float(pycocotools_mask().area({"size": size, "counts": mask}))


def index_of(annotation: object, key: str, indices: dict[int, int], where: str) -> int:
    """What `indices` holds for the number annotation[key]; DataError if there is none."""
    number = integer_of(annotation, key, where)
    if number not in indices:
        raise DataError(f"{where} has the {key} {number}, which the file does not list")
    return indices[number]


def _where(path: str, number: int, annotation: object) -> str:
    key = annotation.get("id") if isinstance(annotation, dict) else None
    return f"{path}: annotation {number}" + (f" (id {key})" if type(key) is int and key < BIGGEST else "")


def integer_of(entry: object, key: str, where: str) -> int:
    value = _entry(entry, key, where)
    if type(value) is not int or not -BIGGEST <= value < BIGGEST:
        raise DataError(f"{where} has the {key} {_short(value)}; expected an integer")
    return value


def text_of(entry: object, key: str, where: str) -> str:
    value = _entry(entry, key, where)
    # JSON may hold halves of surrogate pairs, which are no text and no name of a file.
    if not isinstance(value, str) or not value or re.search("[\ud800-\udfff]", value):
        raise DataError(f"{where} has the {key} {_short(value)}; expected a text")
    return value


def _entry(entry: object, key: str, where: str) -> object:
    if not isinstance(entry, dict) or key not in entry:
        raise DataError(f"{where} has no {key!r}; it is {_short(entry)}")
    return entry[key]


def _refuse_twice(path: str, key: str, values: list) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise DataError(f"{path} lists two images of the {key} {value!r}; each needs its own")
        seen.add(value)


def _is_byte(value: object) -> bool:
    return type(value) is int and 0 <= value <= 255


def _short(value: object) -> str:
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return "a number of thousands of digits"
    return shown if len(shown) <= 80 else f"{shown[:77]}…"
