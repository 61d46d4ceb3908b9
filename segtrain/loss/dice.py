"""The soft Dice loss."""

from __future__ import annotations

from typing import Annotated

from segtrain.loss.heads import check_classes
from segtrain.loss.region import Averaged, Region, check_smooth
from segtrain.options import NOT_NEGATIVE, between
from segtrain.sample import CLASSES, Target


def dice(
    ignore_index: int,
    smooth: Annotated[float, between(0, 1_000_000)] = 1.0,
    classes: Averaged = "present",
    squared: bool = False,
    aux_weight: Annotated[float, NOT_NEGATIVE] = 0.4,
    target: Target = CLASSES,
    task_activation: str = "softmax",
) -> Region:
    """Soft Dice loss, the mean over classes of 1 - (2·Σpt + smooth) / (Σp + Σt + smooth); small classes weigh
    as much as large ones.

    Options:
        smooth: number added to numerator and denominator, to stabilise the loss of classes with few pixels
        classes: present: the mean is over the classes in the targets of the batch; all: over all classes, so
            that the probability of an absent one is a loss too
        squared: sum p² and t² in the denominator (V-Net, Milletari et al. 2016)
        aux_weight: weight of the losses of auxiliary heads
    """
    check_classes("dice", target)
    check_smooth(smooth, classes)
    return Region(
        ignore_index,
        task_activation,
        aux_weight,
        smooth / 2,  # the formula of Region has half the numerator and denominator
        false_positives=0.5,
        false_negatives=0.5,
        averaged=classes,
        squared=squared,
    )
