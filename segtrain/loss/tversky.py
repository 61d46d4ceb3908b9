"""The Tversky loss."""

from __future__ import annotations

from typing import Annotated

from segtrain.loss.heads import check_classes
from segtrain.loss.region import Averaged, Region, check_smooth
from segtrain.options import NOT_NEGATIVE, between
from segtrain.sample import CLASSES, Target


def tversky(
    ignore_index: int,
    alpha: Annotated[float, between(0, 1000)] = 0.3,
    beta: Annotated[float, between(0, 1000)] = 0.7,
    smooth: Annotated[float, between(0, 1_000_000)] = 1.0,
    classes: Averaged = "present",
    aux_weight: Annotated[float, NOT_NEGATIVE] = 0.4,
    target: Target = CLASSES,
    task_activation: str = "softmax",
) -> Region:
    """Tversky loss (Salehi et al. 2017), the mean over classes of 1 - (TP + smooth) / (TP + alpha·FP +
    beta·FN + smooth), from probabilities.

    alpha = beta = 0.5 is Dice, alpha = beta = 1 is Jaccard.

    Options:
        alpha: weight of false positives
        beta: weight of false negatives; above alpha, missed pixels cost more than superfluous ones
        smooth: pixels added to numerator and denominator, to stabilise the loss of classes with few pixels
        classes: present: the mean is over the classes in the targets of the batch; all: over all classes, so
            that the probability of an absent one is a loss too
        aux_weight: weight of the losses of auxiliary heads
    """
    check_classes("tversky", target)
    check_smooth(smooth, classes)
    return Region(
        ignore_index,
        task_activation,
        aux_weight,
        smooth,
        false_positives=alpha,
        false_negatives=beta,
        averaged=classes,
    )
