"""The table of augmentations; those of a config are applied in order, with one random generator.

Each factory makes an `Operation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from segtrain.augmentation.classmix import classmix
from segtrain.augmentation.colour import colour
from segtrain.augmentation.copy_paste import copy_paste
from segtrain.augmentation.cutmix import cutmix
from segtrain.augmentation.elastic import elastic
from segtrain.augmentation.object_affine import object_affine
from segtrain.augmentation.object_crops import object_crops
from segtrain.augmentation.patch import patch
from segtrain.augmentation.pixel import pixel
from segtrain.augmentation.warp import warp
from segtrain.registry import Table
from segtrain.sample import Sample

AUGMENTATION = Table(
    "augmentation",
    {
        "classmix": classmix,
        "colour": colour,
        "copy_paste": copy_paste,
        "cutmix": cutmix,
        "elastic": elastic,
        "object_affine": object_affine,
        "object_crops": object_crops,
        "patch": patch,
        "pixel": pixel,
        "warp": warp,
    },
)


class Operation(Protocol):
    """An augmentation.

    output_size: (height, width) in pixels of all samples after it; None if that depends on the sample.
    needs_instances: whether its result depends on the instances of a sample. If no operation needs them, they
    are not read.
    """

    output_size: tuple[int, int] | None
    needs_instances: bool

    def __call__(
        self, sample: Sample, rng: np.random.Generator, draw: Callable[[np.random.Generator], Sample]
    ) -> Sample:
        """A new sample with image, target and instances aligned; `sample` is not modified. All randomness
        comes from `rng`; `draw(rng)` returns another raw sample of the training split."""


def output_size(ops: Sequence[Operation]) -> tuple[int, int] | None:
    """(height, width) that all samples have after `ops`; None if it depends on the sample."""
    return next((op.output_size for op in reversed(ops) if op.output_size), None)


def needs_instances(ops: Sequence[Operation]) -> bool:
    """Whether an operation needs the instances of samples. One that does not declare it counts as needing
    them."""
    return any(getattr(op, "needs_instances", True) for op in ops)


def apply(
    ops: Sequence[Operation],
    sample: Sample,
    rng: np.random.Generator,
    draw: Callable[[np.random.Generator], Sample],
) -> Sample:
    """The sample after all operations; draw(rng): another raw sample, for operations that mix two."""
    for op in ops:
        sample = op(sample, rng, draw)
    return sample
