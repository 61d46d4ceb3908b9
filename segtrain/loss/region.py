"""Losses that compare the regions of each class: Dice, Jaccard and Tversky are one formula."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.loss.heads import Head, HeadLoss, Wants, check_classes, label_targets, probabilities_of
from segtrain.sample import Output, Target

Averaged = Literal["present", "all"]
"""The classes whose losses are averaged: those in the targets of the batch, or all of them."""
LEAST = 1e-7
"""Least denominator: without `smooth`, that of an absent class would be 0."""


class Sums(NamedTuple):
    """Sums over labelled pixels, float32[C] for the C classes. They add up over parts of a batch.

    hit: probability of the class, over the pixels of the class. probability: the same over all pixels, or its
    square. pixels: number of pixels of the class.
    """

    hit: Tensor
    probability: Tensor
    pixels: Tensor


def class_sums(head: Head, target: Tensor, ignore_index: int, activation: str, squared: bool = False) -> Sums:
    """The sums of a head's probabilities and a B×H×W target. squared: sum the squares of the probabilities in
    `Sums.probability`."""
    valid = target != ignore_index
    if head.banded:
        true_probability, probability = torch.exp(-head.terms.nll), head.terms.sums[2 if squared else 1]
        num_classes = len(probability)
    else:
        probabilities = probabilities_of(head.upsampled(), activation)  # B×C×H×W
        num_classes = probabilities.shape[1]
        true_probability = probabilities.gather(1, target.clamp(0, num_classes - 1)[:, None])[:, 0]
        counted = probabilities * valid[:, None]
        probability = (counted**2 if squared else counted).sum((0, 2, 3))
    classes = target.clamp(0, num_classes - 1)
    # Summed per image row first: one-hot targets would take as much memory as the probabilities, and a
    # single float32 sum over all pixels would be inexact.
    zeros = probability.new_zeros(*target.shape[:2], num_classes)  # B×H×C
    hit = zeros.scatter_add(2, classes, true_probability * valid).sum((0, 1))
    pixels = zeros.scatter_add(2, classes, valid.to(zeros.dtype)).sum((0, 1))
    return Sums(hit, probability, pixels)


def region_loss(
    sums: Sums, false_positives: float, false_negatives: float, smooth: float, averaged: Averaged
) -> Tensor:
    """The mean over classes of 1 - (TP + s) / (TP + a·FP + b·FN + s), a float32 scalar; 0 if no class counts.

    The soft counts are TP = Σ p·t, FP = Σ p - TP and FN = Σ t - TP. a, b: `false_positives` and
    `false_negatives`, with which the formula is Tversky's index; a = b = 1: Jaccard (IoU); a = b = 1/2: Dice.
    """
    hit, probability, pixels = sums
    both = (
        false_positives * probability
        + false_negatives * pixels
        + (1 - false_positives - false_negatives) * hit
    )
    losses = 1 - (hit + smooth) / (both + smooth).clamp_min(LEAST)  # C
    counted = (pixels > 0).float() if averaged == "present" else torch.ones_like(pixels)
    return (losses * counted).sum() / counted.sum().clamp_min(1)


class Region(HeadLoss):
    """`(B · region_loss, B)` over the batch, float32 scalars; (0, 0) if no pixel is labelled.

    The sums are over the labelled pixels of all images. The loss is not a sum over pixels: its value depends
    on which images share a batch.
    """

    def __init__(
        self,
        ignore_index: int,
        activation: str,
        aux_weight: float,
        smooth: float,
        false_positives: float,
        false_negatives: float,
        averaged: Averaged = "present",
        squared: bool = False,
    ):
        super().__init__(aux_weight)
        self.ignore_index, self.activation, self.squared = ignore_index, activation, squared
        self.formula = {
            "false_positives": false_positives,
            "false_negatives": false_negatives,
            "smooth": smooth,
            "averaged": averaged,
        }

    def wants(self, logits: Tensor) -> Wants | None:
        if self.activation != "softmax":
            return None
        return Wants(self.ignore_index, powers=(2 if self.squared else 1,))

    def of_head(self, head: Head, labels: Tensor) -> tuple[Tensor, Tensor]:
        sums = self.sums(head, labels)
        images = len(labels) * (labels != self.ignore_index).any().float()
        return region_loss(sums, **self.formula) * images, images

    def sums(self, head: Head, labels: Tensor) -> Sums:
        """The sums of a batch."""
        return class_sums(head, labels, self.ignore_index, self.activation, self.squared)


class LabelRegion(Region):
    """`Region` of T labels, each with a sigmoid of its own: the mean is over the labels."""

    def labels(self, output: Output, target: Tensor) -> Tensor:
        return label_targets(output, target)  # B×T×H×W

    def wants(self, logits: Tensor) -> None:
        return None

    def sums(self, head: Head, labels: Tensor) -> Sums:
        counted = head.upsampled().sigmoid() * (labels != self.ignore_index)  # B×T×H×W
        holds = (labels == 1).float()
        probability = counted**2 if self.squared else counted
        return Sums(*(values.sum(3).sum((0, 2)) for values in (counted * holds, probability, holds)))


def region_of(name: str, target: Target) -> type[Region]:
    """The class of the loss for the targets of a task. ConfigError if it has neither classes nor labels."""
    if target.labels:
        return LabelRegion
    check_classes(name, target)
    return Region


def check_smooth(smooth: float, averaged: Averaged) -> None:
    """ConfigError if absent classes are averaged without `smooth`: their loss would be 1 whatever the
    probabilities."""
    if averaged == "all" and smooth == 0:
        raise ConfigError(
            "loss.classes=all needs loss.smooth above 0, or absent classes have no gradient; use "
            "loss.smooth=1 or loss.classes=present"
        )
