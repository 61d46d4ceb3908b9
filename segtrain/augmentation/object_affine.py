"""Moves, scales, rotates and mirrors objects of an image; what was behind them is inpainted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np

from segtrain.augmentation import holes
from segtrain.augmentation.mixing import blended, checked_scale
from segtrain.augmentation.objects import (
    ObjectClasses,
    box_of,
    classes_of,
    large_objects,
    nearest_pixel,
    object_classes,
    objects_of,
    unlabelled,
    without_hidden,
)
from segtrain.augmentation.warp import Placement, warped
from segtrain.options import PROBABILITY, between
from segtrain.sample import CLASSES, IGNORE, Facts, Sample, Target, no_label

RING_PX = 4
"""The hole is wider than the object by this many pixels, because annotations cut objects short."""


def object_affine(
    probability: Annotated[float, PROBABILITY] = 0.5,
    max_objects: Annotated[int, between(1, 100)] = 3,
    scale: tuple[Annotated[float, between(0.1, 10)], Annotated[float, between(0.1, 10)]] = (0.8, 1.2),
    rotate: Annotated[float, between(0, 180)] = 15.0,
    shift: Annotated[float, between(0, 10)] = 0.1,
    flip: Annotated[float, PROBABILITY] = 0.5,
    classes: dict[str, Annotated[float, PROBABILITY]] | None = None,
    hole_label: Literal["nearest", "ignore"] = "nearest",
    feather: Annotated[float, between(0, 10)] = 1.0,
    ignore_index: int = IGNORE,
    facts: Facts | None = None,
    target: Target = CLASSES,
) -> ObjectAffine:
    """Moves, scales, rotates and mirrors single objects of an image, each about its own centre.

    The object is cut out with a ring of 4 px, the hole is inpainted from the background, and the object is
    pasted back at its new place, smaller objects over larger ones. Objects are the instances of the data
    set; without instances, the connected components of its thing classes (of all classes but the background
    if it names no things). Objects of less than 0.1 % of the image and those cut by its border stay.

    Options:
        probability: probability that objects of an image are changed at all
        max_objects: largest number of objects changed in an image; the number is drawn from 1 to this one
        scale: smallest and largest scale factor
        rotate: largest rotation in degrees, in either direction
        shift: largest shift, as a share of the width and height of the object
        flip: probability that an object is mirrored left to right
        classes: probability that an object is changed once it is drawn, by class name; objects of classes
            that are not named stay; null: 1 for all
        hole_label: label of the pixels that an object leaves, that of the nearest background, or ignore
            (no label, also in the ring)
        feather: standard deviation in pixels of the soft edge of the colours; labels have a sharp one
    """
    where = "augmentation.object_affine"
    return ObjectAffine(
        probability,
        max_objects,
        checked_scale(scale, where),
        rotate,
        shift,
        flip,
        object_classes(where, classes, facts, ignore_index, target),
        hole_label == "nearest",
        feather,
        ignore_index,
    )


@dataclass(frozen=True)
class Piece:
    """An object cut out of an image. image, target: h×w×K, h×w…, whose pixels outside the object are those
    of the nearest pixel inside it. mask: h×w bool, the object. top, left: place in the image."""

    number: int
    image: np.ndarray
    target: np.ndarray
    mask: np.ndarray
    top: int
    left: int


@dataclass(frozen=True)
class ObjectAffine:
    """The operation made by `object_affine`."""

    needs_instances: ClassVar[bool] = True
    output_size: ClassVar[None] = None
    probability: float
    max_objects: int
    scale: tuple[float, float]
    rotate: float
    shift: float
    flip: float
    object_classes: ObjectClasses
    nearest_label: bool
    feather: float
    ignore_index: int

    def __call__(self, sample: Sample, rng: np.random.Generator, draw: Callable | None = None) -> Sample:
        if rng.random() >= self.probability or sample.target is None:
            return sample
        objects = objects_of(sample, self.object_classes.components)
        areas = np.bincount(objects.ravel())
        chosen = self._chosen(sample, objects, rng)
        if not chosen:
            return sample
        chosen.sort(key=lambda number: (-areas[number], number))
        margin = math.ceil((3 * self.feather + 2) / min(1.0, self.scale[0]))  # the soft edge, once scaled
        pieces = [_piece(sample, objects == number, number, margin) for number in chosen]
        before = sample.instances
        sample = replace(
            sample,
            image=sample.image.copy(),
            target=sample.target.copy(),
            instances=None if before is None else before.copy(),
        )
        moving = np.isin(objects, chosen)
        self._cut(sample, objects, moving)
        depth = np.where(moving | (objects == 0), objects.size, areas[objects])  # H×W, of what stays
        for piece in pieces:
            self._paste(sample, piece, depth >= areas[piece.number], rng)
        if before is not None:
            changed = sample.instances != before
            sample = replace(sample, instances=without_hidden(sample.instances, before, changed))
        return sample

    def _chosen(self, sample: Sample, objects: np.ndarray, rng: np.random.Generator) -> list[int]:
        """Numbers of the objects to change."""
        border = np.concatenate([objects[0], objects[-1], objects[:, 0], objects[:, -1]])
        numbers = np.setdiff1d(large_objects(objects), border)
        count = int(rng.integers(1, self.max_objects + 1))
        classes = classes_of(objects, sample.target, self.ignore_index)
        chosen: list[int] = []
        for number in rng.permutation(numbers).tolist():
            if len(chosen) == count:
                break
            if number not in classes:
                continue
            if rng.random() < self.object_classes.probability_of(classes[number]):
                chosen.append(number)
        return chosen

    def _cut(self, sample: Sample, objects: np.ndarray, moving: np.ndarray) -> None:
        """Fills the holes of the objects that move, in place."""
        background = (objects == 0) & ~unlabelled(sample.target, self.ignore_index)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RING_PX + 1, 2 * RING_PX + 1))
        ring = cv2.dilate(moving.astype(np.uint8), kernel) > 0
        hole = ring & (moving | (objects == 0))  # other objects keep their pixels
        source = background & ~hole
        unknown = no_label(sample.target.dtype, self.ignore_index)
        labels = sample.target.copy()
        count, parts, boxes, _ = cv2.connectedComponentsWithStats(hole.astype(np.uint8), connectivity=8)
        for part in range(1, count):
            left, top, width, height = boxes[part, :4].tolist()
            window = holes.window_of((top, left, top + height, left + width), source)
            inside = parts[window] == part
            holes.fill(sample.image[window], inside, source[window])
            values = None
            if self.nearest_label:
                inside &= moving[window]
                values = holes.labels_of(sample.target[window], inside, background[window])
            labels[window][inside] = unknown if values is None else values
        sample.target[...] = labels
        if sample.instances is not None:
            sample.instances[moving] = 0

    def _paste(self, sample: Sample, piece: Piece, free: np.ndarray, rng: np.random.Generator) -> None:
        """Pastes the object at a random place near its own, in place. free: H×W bool, where no object is in
        front of it."""
        top, left, bottom, right = box_of(piece.mask)
        scale = rng.uniform(*self.scale)
        degrees = rng.uniform(-self.rotate, self.rotate)
        shift = rng.uniform(-self.shift, self.shift, 2) * (right - left, bottom - top)
        flipped = bool(rng.random() < self.flip)
        turned = Placement(0, 0, scale, degrees, flipped, (0.0, 0.0))
        centre = np.array([left + right, top + bottom]) / 2  # x, y
        height, width = piece.mask.shape
        place, (y, x) = _window(turned, centre, np.round(shift), (height, width))
        moved = warped(Sample(piece.image, piece.target), place, self.ignore_index)
        mask = Sample(piece.mask[..., None].astype(np.float32))
        alpha = warped(mask, place, fill=(0.0,)).image[..., 0]  # h×w
        y, x = y + piece.top, x + piece.left
        # The part of the window inside the image.
        rows = slice(max(0, y), max(0, min(y + place.height, free.shape[0])))
        columns = slice(max(0, x), max(0, min(x + place.width, free.shape[1])))
        own = np.s_[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        if rows.stop <= rows.start or columns.stop <= columns.start:
            return
        alpha, free = alpha[own], free[rows, columns]
        inside = (alpha > 0.5) & free
        sample.image[rows, columns] = blended(
            sample.image[rows, columns], moved.image[own], alpha, self.feather, free
        )
        sample.target[rows, columns][inside] = moved.target[own][inside]
        if sample.instances is not None:
            sample.instances[rows, columns][inside] = piece.number


def _piece(sample: Sample, inside: np.ndarray, number: int, margin: int) -> Piece:
    """The object, with `margin` pixels around it, also beyond the border of the image."""
    top, left, bottom, right = box_of(inside)
    mask = np.pad(inside[top:bottom, left:right], margin)
    rows, columns = np.divmod(nearest_pixel(mask), mask.shape[1])
    top, left = top - margin, left - margin
    rows, columns = rows + top, columns + left
    return Piece(number, sample.image[rows, columns], sample.target[rows, columns], mask, top, left)


def _window(
    turned: Placement, centre: np.ndarray, shift: np.ndarray, size: Sequence[int]
) -> tuple[Placement, tuple[int, int]]:
    """Where a piece of `size` (height, width) comes to lie if it is turned about `centre` (x, y) and then
    shifted: the placement that resamples it into its bounding box there, and that box's (top, left), both
    relative to the piece's own corner."""
    inverse = turned.matrix()[:, :2]
    corners = np.array([[0, size[1], 0, size[1]], [0, 0, size[0], size[0]]])
    reached = np.linalg.inv(inverse) @ (corners - centre[:, None]) + (centre + shift)[:, None]
    (left, top), (right, bottom) = np.floor(reached.min(1) + 1e-9), np.ceil(reached.max(1) - 1e-9)
    middle = np.array([left + right, top + bottom]) / 2
    source = centre + inverse @ (middle - centre - shift)
    place = replace(
        turned,
        height=int(bottom - top),
        width=int(right - left),
        centre=(float(source[0]), float(source[1])),
    )
    return place, (int(top), int(left))
