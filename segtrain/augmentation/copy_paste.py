"""Pastes objects of another sample (Ghiasi et al., Simple copy-paste is a strong data augmentation method for
instance segmentation, CVPR 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from segtrain.augmentation.mixing import Partner, mixed, partner_of
from segtrain.augmentation.objects import (
    MIN_VISIBLE_PX,
    ObjectClasses,
    classes_of,
    object_classes,
    objects_of,
)
from segtrain.options import PROBABILITY, between
from segtrain.sample import CLASSES, IGNORE, Facts, Sample, Target


def copy_paste(
    probability: Annotated[float, PROBABILITY] = 0.5,
    scale: tuple[Annotated[float, between(0.1, 10)], Annotated[float, between(0.1, 10)]] = (0.8, 1.25),
    flip: Annotated[float, PROBABILITY] = 0.5,
    classes: Sequence[str] | None = None,
    feather: Annotated[float, between(0, 10)] = 0.0,
    ignore_index: int = IGNORE,
    fill: Sequence[float] | None = None,
    facts: Facts | None = None,
    target: Target = CLASSES,
) -> CopyPaste:
    """Pastes some objects of another training sample, at the places that they have there.

    The other sample is scaled, cropped and mirrored at random to the size of this one; a random subset of
    its objects, at least one, is pasted. Objects are the instances of the data set; without instances, the
    connected components of its thing classes (of all classes but the background if it names no things).
    Objects that are covered but for 20 px are removed from the instances.

    Options:
        probability: probability that objects are pasted into an image
        scale: smallest and largest scale factor of the other sample; the paper's jitter is [0.8, 1.25]
            (small) or [0.1, 2.0] (large)
        flip: probability that the other sample is mirrored left to right
        classes: names of the classes whose objects are pasted; null: all objects
        feather: standard deviation in pixels of the soft edge of the colours (the paper's blurred edge, which
            gains nothing there); labels have a sharp one
    """
    where = "augmentation.copy_paste"
    named = None if classes is None else dict.fromkeys(classes, 1.0)
    return CopyPaste(
        probability,
        partner_of(where, scale, flip, ignore_index, fill, target),
        object_classes(where, named, facts, ignore_index, target),
        feather,
        ignore_index,
    )


@dataclass(frozen=True)
class CopyPaste:
    """The operation made by `copy_paste`."""

    needs_instances: ClassVar[bool] = True
    output_size: ClassVar[None] = None
    probability: float
    partner: Partner
    object_classes: ObjectClasses
    feather: float
    ignore_index: int

    def __call__(
        self, sample: Sample, rng: np.random.Generator, draw: Callable[[np.random.Generator], Sample]
    ) -> Sample:
        if rng.random() >= self.probability or sample.target is None:
            return sample
        other, covered = self.partner.drawn(sample, rng, draw)
        objects = np.where(covered, objects_of(other, self.object_classes.components), 0)
        areas = np.bincount(objects.ravel())
        classes = classes_of(objects, other.target, self.ignore_index)
        numbers = [
            number
            for number, label in classes.items()
            if areas[number] >= MIN_VISIBLE_PX and self.object_classes.probability_of(label) > 0
        ]
        if not numbers:
            return sample
        chosen = rng.choice(numbers, int(rng.integers(1, len(numbers) + 1)), replace=False)
        return mixed(sample, other, np.isin(objects, chosen), self.feather)
