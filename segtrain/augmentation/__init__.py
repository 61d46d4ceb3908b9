"""The table of augmentations, and how those of a config are applied: in order, from one random generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from segtrain.augmentation.colour import colour
from segtrain.augmentation.object_crops import object_crops
from segtrain.augmentation.patch import patch
from segtrain.augmentation.pixel import pixel
from segtrain.augmentation.warp import warp
from segtrain.registry import Table
from segtrain.sample import Sample

AUGMENTATION = Table(
    "augmentation",
    {"colour": colour, "object_crops": object_crops, "patch": patch, "pixel": pixel, "warp": warp},
)


def apply(
    ops: Sequence[Callable],
    sample: Sample,
    rng: np.random.Generator,
    draw: Callable[[np.random.Generator], Sample],
) -> Sample:
    """The sample after all operations; `draw(rng)` gives those that need it another raw sample."""
    for op in ops:
        sample = op(sample, rng, draw)
    return sample
