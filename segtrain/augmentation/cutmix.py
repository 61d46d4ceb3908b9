"""Pastes a rectangle of another sample (Yun et al., CutMix, ICCV 2019; for segmentation French et al.,
Semi-supervised semantic segmentation needs strong, varied perturbations, BMVC 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from segtrain.augmentation.mixing import Partner, mixed, partner_of
from segtrain.errors import ConfigError
from segtrain.options import PROBABILITY, between
from segtrain.sample import CLASSES, IGNORE, Sample, Target


def cutmix(
    probability: Annotated[float, PROBABILITY] = 0.5,
    share: tuple[Annotated[float, between(0.01, 1)], Annotated[float, between(0.01, 1)]] = (0.5, 0.5),
    scale: tuple[Annotated[float, between(0.1, 10)], Annotated[float, between(0.1, 10)]] = (1.0, 1.0),
    flip: Annotated[float, PROBABILITY] = 0.5,
    ignore_index: int = IGNORE,
    fill: Sequence[float] | None = None,
    target: Target = CLASSES,
) -> CutMix:
    """Pastes a rectangle of another training sample, with its labels.

    The other sample is scaled, cropped and mirrored at random to the size of this one. The rectangle has any
    place and any ratio of its sides with which it fits into the image; where the other sample does not
    reach, this one stays.

    Options:
        probability: probability that a rectangle is pasted into an image
        share: smallest and largest share of the image that the rectangle has; French et al. take half
        scale: smallest and largest scale factor of the other sample
        flip: probability that the other sample is mirrored left to right
    """
    where = "augmentation.cutmix"
    if share[0] > share[1]:
        raise ConfigError(f"{where}.share is {list(share)}; allowed: the smaller share first")
    return CutMix(probability, tuple(share), partner_of(where, scale, flip, ignore_index, fill, target))


@dataclass(frozen=True)
class CutMix:
    """The operation made by `cutmix`."""

    needs_instances: ClassVar[bool] = False
    output_size: ClassVar[None] = None
    probability: float
    share: tuple[float, float]
    partner: Partner

    def __call__(
        self, sample: Sample, rng: np.random.Generator, draw: Callable[[np.random.Generator], Sample]
    ) -> Sample:
        if rng.random() >= self.probability:
            return sample
        other, covered = self.partner.drawn(sample, rng, draw)
        inside = np.zeros_like(covered)
        inside[self._rectangle(covered.shape, rng)] = True
        return mixed(sample, other, inside & covered)

    def _rectangle(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[slice, slice]:
        """Rows and columns of the rectangle."""
        share = rng.uniform(*self.share)
        height = share ** rng.uniform()  # of the image's height; log-uniform from `share` to 1
        sides = [
            max(1, round(side * part)) for side, part in zip(size, (height, share / height), strict=True)
        ]
        corner = [int(rng.integers(whole - side + 1)) for whole, side in zip(size, sides, strict=True)]
        return tuple(slice(first, first + side) for first, side in zip(corner, sides, strict=True))
