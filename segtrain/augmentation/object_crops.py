"""Crops around objects: the training data of DeconvNet (Noh, Hong & Han, Learning deconvolution network
for semantic segmentation, ICCV 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np

from segtrain.augmentation.objects import box_of, large_objects, objects_of
from segtrain.augmentation.warp import LARGEST, SMALLEST, Placement, warped
from segtrain.errors import ConfigError
from segtrain.options import PROBABILITY, SIDE_PX, between
from segtrain.sample import CLASSES, IGNORE, Facts, Sample, Target

CONTEXT = 1.2
"""Side of the square around the objects, relative to the longer side of their bounding box."""
NEIGHBOURS = 3
"""Largest number of further objects in a crop of stage 2."""


def object_crops(
    stage: Literal[1, 2] = 1,
    size: Annotated[int, SIDE_PX] = 224,
    resized: Annotated[int, SIDE_PX] = 250,
    flip: Annotated[float, PROBABILITY] = 0.5,
    background: Annotated[int, between(0, 254)] | Literal["ignore"] | None = None,
    ignore_index: int = IGNORE,
    fill: Sequence[float] | None = None,
    facts: Facts | None = None,
    target: Target = CLASSES,
) -> ObjectCrops:
    """Crops around one object or a few objects, all scaled to one size: the two training stages of
    DeconvNet.

    The bounding box of the objects, made square and 1.2 times as large, is scaled to `resized` pixels; a
    random crop of `size` is taken from it. Objects are the instances of the data set; without instances, the
    connected components of its thing classes (of all classes but the background if it names no things).
    Targets are resampled nearest.

    Options:
        stage: 1: one object, everything else is labelled background; 2: an object with one to three of its
            nearest neighbours, all labels kept
        size: side of the crop in pixels
        resized: side in pixels that the box is scaled to before the crop is drawn from it
        flip: probability of a horizontal flip
        background: label of everything but the object in stage 1: a class index, or ignore (no label); null:
            the class named background, of two classes without that name the first, else ignore
    """
    where = "augmentation.object_crops"
    if not target.classes:
        raise ConfigError(
            f"{where} crops objects of classes, and the task has none; use another augmentation"
        )
    if size > resized:
        raise ConfigError(
            f"{where}.size is {size} and {where}.resized {resized}; allowed: resized at least size"
        )
    names = () if facts is None else facts.classes
    if isinstance(background, int) and background >= (len(names) or ignore_index):
        raise ConfigError(
            f"{where}.background is {background}; allowed: the index of a class, ignore, or null"
        )
    if background is None:
        background = None if facts is None else facts.background
    background = ignore_index if background in (None, "ignore") else background
    things = () if facts is None else facts.things
    classes = things or tuple(index for index in range(len(names) or ignore_index) if index != background)
    return ObjectCrops(
        stage,
        (size, size),
        resized,
        flip,
        background,
        classes,
        ignore_index,
        None if fill is None else tuple(fill),
    )


@dataclass(frozen=True)
class ObjectCrops:
    """The operation made by `object_crops`. background: label of pixels outside the object. classes:
    indices of the classes whose connected components are objects."""

    stage: int
    needs_instances: ClassVar[bool] = True
    output_size: tuple[int, int]
    resized: int
    flip: float
    background: int
    classes: tuple[int, ...]
    ignore_index: int
    fill: tuple[float, ...] | None

    def __call__(self, sample: Sample, rng: np.random.Generator, draw: Callable | None = None) -> Sample:
        if sample.target is None:
            return warped(sample, self._whole(sample, rng), self.ignore_index, self.fill)
        objects = objects_of(sample, self.classes)
        chosen = self._chosen(objects, rng, np.unique(objects[sample.target == sample.focus]))
        inside = np.isin(objects, chosen)
        place = self._around(box_of(inside), CONTEXT, rng) if chosen else self._whole(sample, rng)
        if self.stage == 1:
            # Unlabelled pixels stay unlabelled: whether they belong to the object is unknown.
            target = np.where(inside | (sample.target == self.ignore_index), sample.target, self.background)
            sample = replace(sample, target=target.astype(sample.target.dtype))
        return warped(sample, place, self.ignore_index, self.fill)

    def _chosen(self, objects: np.ndarray, rng: np.random.Generator, wanted: np.ndarray) -> list[int]:
        """Numbers of the objects in the crop; [] if the image has none. wanted: numbers of which the first is
        drawn, if there are any but 0."""
        numbers = large_objects(objects)
        if len(numbers) == 0:
            numbers = np.setdiff1d(objects, 0)
        if len(numbers) == 0:
            return []
        wanted = wanted[wanted > 0]
        first = int(rng.choice(wanted if len(wanted) else numbers))
        if self.stage == 1:
            return [first]
        centres = {int(number): _centre(box_of(objects == number)) for number in numbers}
        centres.setdefault(first, _centre(box_of(objects == first)))  # it may be smaller than these
        others = sorted(centres, key=lambda number: np.linalg.norm(centres[number] - centres[first]))
        return others[: 1 + int(rng.integers(1, NEIGHBOURS + 1))]

    def _whole(self, sample: Sample, rng: np.random.Generator) -> Placement:
        return self._around((0, 0, *sample.image.shape[:2]), 1.0, rng)

    def _around(self, box: tuple[int, int, int, int], context: float, rng: np.random.Generator) -> Placement:
        """A random crop of `size` from the square around the box, scaled to `resized`."""
        top, left, bottom, right = box
        scale = float(np.clip(self.resized / (context * max(bottom - top, right - left)), SMALLEST, LARGEST))
        offset = (rng.random(2) - 0.5) * (self.resized - self.output_size[0]) / scale
        y, x = _centre(box) + offset
        return Placement(*self.output_size, scale, 0.0, bool(rng.random() < self.flip), (float(x), float(y)))


def _centre(box: tuple[int, int, int, int]) -> np.ndarray:
    """(y, x), continuous."""
    top, left, bottom, right = box
    return np.array([top + bottom, left + right]) / 2
