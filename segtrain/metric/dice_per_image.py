"""Dice of each image, averaged over the images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segtrain.metric.confusion import Confusion
from segtrain.sample import Number, PerClass, ScoreDict


class DicePerImage:
    """The Dice of each class in each image, averaged over the images: every image counts alike, while the
    Dice of `confusion` counts every pixel of the set alike."""

    needs = frozenset({"decisions"})

    def __init__(self, num_classes: int, ignore_index: int, num_answers: int | None = None):
        self.num_classes = num_classes
        self._confusion = Confusion(num_classes, ignore_index, num_answers=num_answers)

    def counts(self, target: Tensor, *, decisions: Tensor) -> Tensor:
        """B×(C + 1) float64, one row per image: its Dice of each class, 1 for a class that is neither
        labelled nor predicted, and 1; all 0 for an image without a label. target, decisions: B×H×W
        integers."""
        matrices = self._confusion.counts(target, decisions=decisions).double()  # B×C×A
        truth, answer = matrices.sum(2), matrices.sum(1)[:, : self.num_classes]
        hit = matrices.diagonal(dim1=1, dim2=2)
        either = truth + answer
        dice = torch.where(either > 0, 2 * hit / either.clamp(min=1), 1.0)  # B×C
        labelled = truth.sum(1, keepdim=True) > 0
        return torch.cat([dice, torch.ones_like(dice[:, :1])], dim=1) * labelled

    def scores(self, counts: Tensor) -> ScoreDict:
        """`dice_per_image`, the mean over images and classes, and `class_dice_per_image` by class; None
        without an image. counts: C + 1, summed over images."""
        *total, images = counts.tolist()
        dice = [one / images if images else None for one in total]
        mean = math.fsum(dice) / len(dice) if images else None
        return {
            "class_dice_per_image": PerClass("Dice per image", tuple(dice), mean="dice_per_image"),
            "dice_per_image": Number("mean Dice per image", mean),
        }


def dice_per_image(num_classes: int, ignore_index: int, num_answers: int | None = None) -> DicePerImage:
    """Dice of each class in each image (1 if it is neither labelled nor predicted there), averaged over the
    images."""
    return DicePerImage(num_classes, ignore_index, num_answers)
