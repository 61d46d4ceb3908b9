"""The soft Jaccard loss: 1 - IoU, computed from probabilities instead of decisions."""

from __future__ import annotations

from typing import Annotated

from segtrain.loss.region import Region, region_of
from segtrain.options import NOT_NEGATIVE, between
from segtrain.sample import CLASSES, Target


def jaccard(
    ignore_index: int,
    smooth: Annotated[float, between(0, 1_000_000)] = 1.0,
    aux_weight: Annotated[float, NOT_NEGATIVE] = 0.4,
    target: Target = CLASSES,
    task_activation: str = "softmax",
) -> Region:
    """Soft Jaccard (IoU) loss of the classes in the batch (Rahman & Wang 2016); small classes weigh as much
    as large ones.

    Options:
        smooth: pixels added to intersection and union, to stabilise the loss of classes with few pixels
        aux_weight: weight of the losses of auxiliary heads
    """
    made = region_of("jaccard", target)
    return made(ignore_index, task_activation, aux_weight, smooth, false_positives=1.0, false_negatives=1.0)
