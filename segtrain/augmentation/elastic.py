"""Elastic deformation (Ronneberger et al., U-Net: convolutional networks for biomedical image segmentation,
MICCAI 2015, sec. 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import cv2
import numpy as np

from segtrain.augmentation.warp import bilinear_known, on_scale
from segtrain.options import PROBABILITY, between
from segtrain.sample import CLASSES, IGNORE, Sample, Target, no_label


def elastic(
    grid: Annotated[int, between(2, 64)] = 3,
    deviation: Annotated[float, between(0, 1000)] = 10.0,
    probability: Annotated[float, PROBABILITY] = 1.0,
    ignore_index: int = IGNORE,
    fill: Sequence[float] | None = None,
    target: Target = CLASSES,
) -> Elastic:
    """Elastic deformation of image, target and instances by random displacements on a coarse grid,
    interpolated bicubic in between.

    For images of any number of channels and any pixel type, of the size that training sees: after warp.
    Images are resampled bilinear, labels nearest; pixels that move in from outside the image have the mean
    colour and no label. The defaults are those of the U-Net for tiles of 572 px.

    Options:
        grid: points of the grid along each side
        deviation: standard deviation of the displacements in pixels
        probability: probability that an image is deformed at all
    """
    return Elastic(
        grid,
        deviation,
        probability,
        ignore_index,
        None if fill is None else tuple(fill),
        target.interpolation == "linear",
    )


@dataclass(frozen=True)
class Elastic:
    """The operation made by `elastic`."""

    needs_instances: ClassVar[bool] = False
    output_size: ClassVar[None] = None
    grid: int
    deviation: float
    probability: float
    ignore_index: int
    fill: tuple[float, ...] | None
    linear_target: bool

    def __call__(self, sample: Sample, rng: np.random.Generator, draw: Callable | None = None) -> Sample:
        if rng.random() >= self.probability:
            return sample
        height, width = sample.image.shape[:2]
        coarse = rng.normal(0, self.deviation, (self.grid, self.grid, 2)).astype(np.float32)
        moved = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)  # H×W×2: x, y
        # Positions in the source, where pixel i has its centre at i.
        x = moved[..., 0] + np.arange(width, dtype=np.float32)
        y = moved[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        columns, rows = (np.floor(axis + 0.5).astype(np.intp) for axis in (x, y))
        outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
        rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
        image = _bilinear(sample.image, x, y)
        fill = (0.0,) * image.shape[2] if self.fill is None else self.fill
        image[outside] = on_scale(np.asarray(fill, np.float64), image.dtype)
        target, instances = sample.target, sample.instances
        if target is not None:
            if self.linear_target:
                target = bilinear_known(target, lambda values: _bilinear(values, x, y))
            else:
                target = target[rows, columns]
            target[outside] = no_label(target.dtype, self.ignore_index)
        if instances is not None:
            instances = instances[rows, columns]
            instances[outside] = 0
        return replace(sample, image=image, target=target, instances=instances)


def _bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """H×W×K resampled at the positions x, y (H×W float32), with border pixels replicated."""
    parts = [
        cv2.remap(
            np.ascontiguousarray(image[..., first : first + 4]),
            x,
            y,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(*x.shape, -1)  # cv2 drops the axis of a single channel
        for first in range(0, image.shape[2], 4)
    ]
    return np.concatenate(parts, axis=2)
