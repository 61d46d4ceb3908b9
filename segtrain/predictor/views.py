"""The mean of the probabilities over views of an image (test-time augmentation)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.predictor.tiles import Predict
from segtrain.sample import View

IDENTITY = View(lambda images: images, lambda probabilities, size: (probabilities, 1.0))


def average(predict: Predict, views: Sequence[Sequence[View]]) -> Predict:
    """The weighted mean ΣW·Q / ΣW of the probabilities Q of all combinations of views, one of each group.

    The plain image is added to every group, with weight 1, so no pixel is without a weight. `predict` may
    answer for the inner part of its images only.
    """
    if not views:
        return predict
    combinations = list(itertools.product(*([IDENTITY, *group] for group in views)))

    def averaged(images: Tensor) -> Tensor:
        total, weights = None, 0.0
        for combination in combinations:
            part, weight = _weighted(predict, images, combination)
            total = part.clone() if total is None else total.add_(part)
            weights = weights + weight
        return total.div_(weights)

    return averaged


def _weighted(predict: Predict, images: Tensor, combination: Sequence[View]) -> tuple[Tensor, Tensor | float]:
    """W·Q and W of one combination of views."""
    sizes = []
    for view in combination:
        sizes.append(images.shape[-2:])
        images = view.forward(images)
    part, weight = predict(images), 1.0
    lost = [side - inner for side, inner in zip(images.shape[-2:], part.shape[-2:], strict=True)]
    if any(lost) and any(size != images.shape[-2:] for size in sizes):
        raise ConfigError(
            "a view of tta has another size than the image, and this network answers for the inner part of "
            "its tiles; use predictor.tile=null"
        )
    for view, size in zip(reversed(combination), reversed(sizes), strict=True):
        size = tuple(side - less for side, less in zip(size, lost, strict=True))
        part, own = view.backward(part, size)
        if isinstance(weight, Tensor):
            # As W·Q, so that what is interpolated from weight 0 does not count.
            weight = view.backward(weight, size)[0]
        if isinstance(own, Tensor) or own != 1:
            part, weight = part * own, weight * own
    return part, weight
