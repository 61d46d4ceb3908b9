"""Crops around objects, as DeconvNet is trained (Noh, Hong & Han 2015, "Learning deconvolution network for
semantic segmentation")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from segtrain.augmentation.objects import box_of, objects_of, worth_a_look
from segtrain.augmentation.warp import LARGEST, SMALLEST, Placement, warped
from segtrain.errors import ConfigError
from segtrain.options import PROBABILITY, SIDE_PX, between
from segtrain.sample import CLASSES, IGNORE, Facts, Sample, Target

CONTEXT = 1.2
"""How much larger than the box of the objects the part of the image is that is taken."""
NEIGHBOURS = 3
"""The most objects that share a crop with the drawn one."""


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
    """Crops around one object, or around a few, all scaled to one size: the two training stages of DeconvNet.

    The box of an object, made square and 1.2 times as large, is scaled to `resized` pixels; a crop of `size`
    is drawn from it. Objects are the instances of the data set; without instances the connected components of
    its thing classes, or of all classes but the background where it names no things. Labels are interpolated
    nearest.

    Options:
        stage: 1: one object, everything else is labelled background; 2: an object with one to three of its
            nearest neighbours, all labels kept
        size: side of the crop in pixels
        resized: side in pixels that the box is scaled to before the crop is drawn from it
        flip: probability of a horizontal flip
        background: label of everything but the object in stage 1: a class index, or ignore (no label); null:
            the class named background, or ignore if no class has that name
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
        background = names.index("background") if "background" in names else "ignore"
    background = ignore_index if background == "ignore" else background
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
    """The operation that `object_crops` makes. background: label of the pixels outside the object. classes:
    indices of the classes whose connected components are objects."""

    stage: int
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
        chosen = self._chosen(objects, rng)
        inside = np.isin(objects, chosen)
        place = self._around(box_of(inside), CONTEXT, rng) if chosen else self._whole(sample, rng)
        if self.stage == 1:
            # A pixel without a label stays one: nobody knows whether it belongs to the object.
            target = np.where(inside | (sample.target == self.ignore_index), sample.target, self.background)
            sample = replace(sample, target=target.astype(sample.target.dtype))
        return warped(sample, place, self.ignore_index, self.fill)

    def _chosen(self, objects: np.ndarray, rng: np.random.Generator) -> list[int]:
        """Numbers of the objects that the crop shows; none if there are none."""
        numbers = worth_a_look(objects)
        if len(numbers) == 0:
            return []
        first = int(rng.choice(numbers))
        if self.stage == 1:
            return [first]
        centres = {int(number): _centre(box_of(objects == number)) for number in numbers}
        others = sorted(centres, key=lambda number: np.linalg.norm(centres[number] - centres[first]))
        return others[: 1 + int(rng.integers(1, NEIGHBOURS + 1))]

    def _whole(self, sample: Sample, rng: np.random.Generator) -> Placement:
        return self._around((0, 0, *sample.image.shape[:2]), 1.0, rng)

    def _around(self, box: tuple[int, int, int, int], context: float, rng: np.random.Generator) -> Placement:
        """A crop of `size` somewhere in the square around the box, scaled to `resized`."""
        top, left, bottom, right = box
        scale = float(np.clip(self.resized / (context * max(bottom - top, right - left)), SMALLEST, LARGEST))
        offset = (rng.random(2) - 0.5) * (self.resized - self.output_size[0]) / scale
        y, x = _centre(box) + offset
        return Placement(*self.output_size, scale, 0.0, bool(rng.random() < self.flip), (float(x), float(y)))


def _centre(box: tuple[int, int, int, int]) -> np.ndarray:
    """(y, x), continuous."""
    top, left, bottom, right = box
    return np.array([top + bottom, left + right]) / 2
