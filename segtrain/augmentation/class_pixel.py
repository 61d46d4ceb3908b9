"""Class-balanced sampling of pixels: a class is drawn first, then one of its pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

ClassDraw = Literal["uniform", "sqrt_inverse"]


def class_draw_weights(class_draw: ClassDraw, class_frequency: Callable) -> np.ndarray | None:
    """float64[C]: sampling weight of each class, not normalised; None for uniform sampling."""
    if class_draw == "uniform":
        return None
    return 1.0 / np.sqrt(np.maximum(np.asarray(class_frequency().pixels, np.float64), 1.0))


def pixel_of_a_class(
    target: np.ndarray,
    class_weights: np.ndarray | None,
    ignore_index: int,
    rng: np.random.Generator,
    focus: int | None = None,
) -> tuple[int, int] | None:
    """(row, column) of a random pixel of the class `focus`, or, if that is None or not present, of a class
    drawn among those present; None if no pixel is labelled.

    target: H×W unsigned integers. class_weights: float[C] from `class_draw_weights`.
    """
    counts = np.bincount(target.ravel(), minlength=ignore_index + 1)
    counts[ignore_index] = 0
    present = np.flatnonzero(counts)
    if len(present) == 0:
        return None
    if focus in present:
        chosen = focus
    else:
        weights = None if class_weights is None else class_weights[present] / class_weights[present].sum()
        chosen = rng.choice(present, p=weights)
    place = np.flatnonzero(target == chosen)[rng.integers(counts[chosen])]
    return divmod(int(place), target.shape[1])
