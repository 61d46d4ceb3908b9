"""Annotation files of labelme: one JSON file an image."""

from __future__ import annotations

import base64
import io
import json
import os

import numpy as np
from PIL import Image

from segtrain.data.files.outlines import Shape
from segtrain.errors import DataError

MAX_BYTES = 1 << 29  # the file may hold its image
LINES = ("line", "linestrip", "point", "points")
POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}
"""Least number of points of a shape."""
OUTLINES = ("polygon", "rectangle", "circle")


def read_labelme(path: str) -> tuple[tuple[int, int], list[Shape], int]:
    """(H, W), the shapes, and how many others (lines, points, polygons of two points) have
    no area. DataError for a file that is
    none of labelme's."""
    try:
        if os.path.getsize(path) > MAX_BYTES:
            raise DataError(
                f"{path} has more than {MAX_BYTES} bytes, which no annotation needs; correct or remove it"
            )
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
        size = (int(content["imageHeight"]), int(content["imageWidth"]))
        found = content["shapes"]
        if min(size) < 1 or not isinstance(found, list):
            raise ValueError("no size or no list of shapes")
        shapes = [_shape(one) for one in found if _has_area(one)]
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is no annotation of labelme ({type(error).__name__}: {error}); expected imageHeight, "
            f"imageWidth "
            f"and shapes; save it anew in labelme, or remove it"
        ) from error
    return size, shapes, len(found) - len(shapes)


def _has_area(plain: dict) -> bool:
    """Whether a shape is no line, no point, and no polygon, rectangle or circle of too few points."""
    kind, points = plain.get("shape_type") or "polygon", plain.get("points")
    return kind not in LINES and not (
        kind in OUTLINES and isinstance(points, list) and len(points) < POINTS[kind]
    )


def _shape(plain: dict) -> Shape:
    kind, label = plain.get("shape_type") or "polygon", plain["label"]
    points = np.array(plain["points"], np.float64)
    if kind not in POINTS or not isinstance(label, str):
        raise ValueError(f"a shape of type {kind!r} with the label {label!r}")
    if (
        points.ndim != 2
        or points.shape[1] != 2
        or len(points) < POINTS[kind]
        or not np.isfinite(points).all()
    ):
        raise ValueError(f"a {kind} {label!r} of {len(points)} points")
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points[:2]
        return Shape(label, "polygon", np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]))
    if kind == "mask":
        return Shape(label, "mask", points, _mask(plain["mask"]), tuple(points.min(0).astype(int).tolist()))
    return Shape(label, kind, points)


def _mask(encoded: str) -> np.ndarray:
    """h×w bool of a PNG in base64."""
    with Image.open(io.BytesIO(base64.b64decode(encoded)), formats=("PNG",)) as image:
        return np.asarray(image.convert("L")) > 0
