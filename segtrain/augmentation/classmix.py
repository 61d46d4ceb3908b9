"""Pastes half of the classes of another sample (Olsson et al., ClassMix: segmentation-based data augmentation
for semi-supervised learning, WACV 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from segtrain.augmentation.mixing import Partner, mixed, partner_of
from segtrain.errors import ConfigError
from segtrain.options import PROBABILITY, between
from segtrain.sample import CLASSES, IGNORE, Sample, Target


def classmix(
    probability: Annotated[float, PROBABILITY] = 0.5,
    scale: tuple[Annotated[float, between(0.1, 10)], Annotated[float, between(0.1, 10)]] = (1.0, 1.0),
    flip: Annotated[float, PROBABILITY] = 0.5,
    ignore_index: int = IGNORE,
    fill: Sequence[float] | None = None,
    target: Target = CLASSES,
) -> ClassMix:
    """Pastes all pixels of half of the classes of another training sample.

    The other sample is scaled, cropped and mirrored at random to the size of this one. Of the n classes in
    it, n/2 are drawn, rounded down; the paper takes them from predictions, here they are the labels'.

    Options:
        probability: probability that classes are pasted into an image
        scale: smallest and largest scale factor of the other sample
        flip: probability that the other sample is mirrored left to right
    """
    where = "augmentation.classmix"
    if not target.classes:
        raise ConfigError(f"{where} mixes classes, and the task has none; use augmentation=cutmix")
    partner = partner_of(where, scale, flip, ignore_index, fill, target)
    return ClassMix(probability, partner, ignore_index)


@dataclass(frozen=True)
class ClassMix:
    """The operation made by `classmix`."""

    needs_instances: ClassVar[bool] = False
    output_size: ClassVar[None] = None
    probability: float
    partner: Partner
    ignore_index: int

    def __call__(
        self, sample: Sample, rng: np.random.Generator, draw: Callable[[np.random.Generator], Sample]
    ) -> Sample:
        if rng.random() >= self.probability or sample.target is None:
            return sample
        other, _ = self.partner.drawn(sample, rng, draw)
        classes = np.setdiff1d(other.target, [self.ignore_index])
        chosen = rng.choice(classes, len(classes) // 2, replace=False)
        return mixed(sample, other, np.isin(other.target, chosen)) if len(chosen) else sample
