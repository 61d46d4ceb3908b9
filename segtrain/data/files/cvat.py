"""Annotation files of CVAT: one XML file ("CVAT for images 1.1") of all images."""

from __future__ import annotations

import os
import xml.etree.ElementTree as tree

import numpy as np

from segtrain.data.files.outlines import Shape
from segtrain.errors import DataError

MAX_BYTES = 1 << 30
AREAS = ("polygon", "box", "ellipse", "mask")
OTHERS = ("polyline", "points", "cuboid", "skeleton", "tag")


def read_cvat(path: str) -> dict[str, tuple[tuple[int, int], list[Shape], int]]:
    """{path of an image: (H, W), its shapes, number of shapes without area}. DataError for another file."""
    try:
        if os.path.getsize(path) > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES} bytes; split it")
        with open(path, "rb") as file:
            content = file.read()
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            raise ValueError("it defines entities")
        root = tree.fromstring(content)
        if root.find("track") is not None:
            raise DataError(
                f"{path} holds tracks of a video; export the task from CVAT as 'CVAT for images 1.1', "
                f"which has an "
                f"image for each frame"
            )
        images = root.findall("image")
        if root.tag != "annotations" or not images:
            raise ValueError(f"a <{root.tag}> without images")
        return {image.attrib["name"]: _image(image) for image in images}
    except DataError:
        raise
    except (OSError, ValueError, KeyError, tree.ParseError) as error:
        raise DataError(
            f"{path} is no annotation of CVAT ({type(error).__name__}: {error}); export it from CVAT as "
            f"'CVAT for "
            f"images 1.1'"
        ) from error


def _image(image: tree.Element) -> tuple[tuple[int, int], list[Shape], int]:
    size = (int(image.attrib["height"]), int(image.attrib["width"]))
    if min(size) < 1:
        raise ValueError(f"image {image.attrib['name']!r} of size {size}")
    areas = [one for one in image if one.tag in AREAS and not _is_line(one)]
    lines = sum(one.tag in OTHERS or _is_line(one) for one in image)
    return size, [_shape(one, size) for one in areas], lines


def _is_line(element: tree.Element) -> bool:
    """Whether a polygon has fewer than three points."""
    return element.tag == "polygon" and element.attrib.get("points", ";;").count(";") < 2


def _shape(element: tree.Element, size: tuple[int, int]) -> Shape:
    get = element.attrib
    label, height = get["label"], int(get.get("z_order", 0))
    if element.tag == "polygon":
        points = np.array([point.split(",") for point in get["points"].split(";")], np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
            raise ValueError(f"a polygon {label!r} of {len(points)} points")
        return _finite(Shape(label, "polygon", points, height=height))
    if element.tag == "box":
        x0, y0, x1, y1 = (float(get[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        return _finite(
            Shape(label, "polygon", _turned(corners, float(get.get("rotation", 0))), height=height)
        )
    if element.tag == "ellipse":
        if float(get.get("rotation", 0)):
            raise ValueError(f"a turned ellipse {label!r}, which is not read: make it a polygon")
        points = np.array([(float(get["cx"]), float(get["cy"])), (float(get["rx"]), float(get["ry"]))])
        return _finite(Shape(label, "ellipse", points, height=height))
    left, top, width, rows = (int(get[key]) for key in ("left", "top", "width", "height"))
    runs = np.array(get["rle"].split(","), np.int64)
    if min(left, top) < 0 or min(width, rows) < 1 or width > size[1] or rows > size[0]:
        raise ValueError(f"a mask {label!r} of {width}x{rows} pixels at {left}, {top}")
    if (runs < 0).any() or runs.sum() != width * rows:
        raise ValueError(f"a mask {label!r} of {width}x{rows} pixels whose runs have {runs.sum()}")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)  # runs of 0 and 1 in turn, from 0 on, row by row
    return Shape(label, "mask", np.zeros((0, 2)), values.reshape(rows, width), (left, top), height)


def _turned(corners: np.ndarray, degrees: float) -> np.ndarray:
    """The corners turned clockwise about their centre."""
    angle, centre = np.deg2rad(degrees), corners.mean(0)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (corners - centre) @ turn + centre


def _finite(shape: Shape) -> Shape:
    if not np.isfinite(shape.points).all():
        raise ValueError(f"a {shape.kind} {shape.label!r} with coordinates that are no numbers")
    return shape
