"""Patches around labelled pixels, for patch-wise classification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np

from segtrain.augmentation.class_pixel import ClassDraw, class_draw_weights, pixel_of_a_class
from segtrain.options import PROBABILITY, SIDE_PX
from segtrain.sample import CLASSES, IGNORE, Sample, Target


def patch(
    size: Annotated[int, SIDE_PX] = 65,
    flip: Annotated[float, PROBABILITY] = 0.5,
    class_draw: ClassDraw = "uniform",
    ignore_index: int = IGNORE,
    class_frequency: Callable | None = None,
    target: Target = CLASSES,
) -> Patch:
    """A square patch centred on a labelled pixel of a class drawn among those present.

    The image is reflected at its border. For model=patchwise, with size=model.patch; as the last operation.

    Options:
        size: side of the window in pixels; its centre is pixel size // 2
        flip: probability of a horizontal flip
        class_draw: how that class is drawn among those in the image: uniform, or sqrt_inverse with
            probability proportional to 1/sqrt of its pixels in the training split
    """
    weights = class_draw_weights(class_draw, class_frequency) if target.classes else None
    return Patch((size, size), flip, weights, ignore_index, target.classes)


@dataclass(frozen=True)
class Patch:
    """The operation made by `patch`."""

    needs_instances: ClassVar[bool] = False
    output_size: tuple[int, int]
    flip: float
    class_weights: np.ndarray | None
    ignore_index: int
    by_class: bool = True

    def __call__(self, sample: Sample, rng: np.random.Generator, draw: Callable | None = None) -> Sample:
        height, width = sample.image.shape[:2]
        flipped = rng.random() < self.flip
        centre = (
            None
            if sample.target is None or not self.by_class
            else pixel_of_a_class(sample.target, self.class_weights, self.ignore_index, rng, sample.focus)
        )
        row, column = centre or (int(rng.integers(height)), int(rng.integers(width)))
        # Flipped about the centre pixel, so that the pixel stays in place for even sizes too.
        steps = np.arange(self.output_size[0]) - self.output_size[0] // 2
        rows, columns = (
            _reflected(row + steps, height),
            _reflected(column + (-steps if flipped else steps), width),
        )
        given = {name: getattr(sample, name) for name in ("image", "target", "instances")}
        return replace(
            sample,
            **{name: one.take(rows, 0).take(columns, 1) for name, one in given.items() if one is not None},
        )


def _reflected(places: np.ndarray, length: int) -> np.ndarray:
    """Positions reflected into 0..length-1, repeatedly if need be, without repeating the border pixel."""
    period = max(2 * (length - 1), 1)
    folded = np.abs(places) % period
    return np.minimum(folded, period - folded)
