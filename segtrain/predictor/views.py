"""Test-time augmentation: probabilities averaged over views of the images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

from segtrain.predictor.tiles import Predict
from segtrain.sample import IDENTITY, View


def average(predict: Predict, views: Sequence[Sequence[View]]) -> Predict:
    """Σ w·q / Σ w of the probabilities q over all combinations of views, one view of each group.

    The plain image is always one of them, with weight 1 everywhere.
    """
    if not views:
        return predict
    groups = [group if any(view is IDENTITY for view in group) else [IDENTITY, *group] for group in views]
    combinations = list(itertools.product(*groups))

    def averaged(images: Tensor) -> Tensor:
        total, weights = None, 0.0
        for combination in combinations:
            part, weight = _seen(predict, images, combination)  # B×C×H×W, B×1×H×W or a number
            total = part.clone() if total is None else total.add_(part)
            weights = weights + weight
        return total.div_(weights)

    return averaged


def _seen(predict: Predict, images: Tensor, combination: Sequence[View]) -> tuple[Tensor, Tensor | float]:
    """w·q and w of one combination of views, mapped back to the images."""
    sizes = []
    for view in combination:
        sizes.append(tuple(images.shape[-2:]))
        images = view.forward(images)
    part, weight = predict(images), 1.0
    for view, size in zip(reversed(combination), reversed(sizes), strict=True):
        # The product is mapped back, so that what a view did not see has no part in its neighbours.
        part, own = view.backward(part, size)
        inner = weight if isinstance(weight, float) else view.backward(weight, size)[0]
        part = part if isinstance(own, float) and own == 1 else part * own
        weight = own * inner
    return part, weight
