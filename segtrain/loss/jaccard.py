"""The soft Jaccard loss: 1 - IoU, computed from probabilities instead of decisions."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from segtrain.loss.heads import HeadLoss, check_activation, check_classes
from segtrain.options import NOT_NEGATIVE, between
from segtrain.sample import CLASSES, Output, Target


class Jaccard(HeadLoss):
    """`(B · mean over classes of (1 - soft IoU), B)`, float32 scalars; (0, 0) if no pixel is labelled.

    Intersection and union are summed over the labelled pixels of the whole batch; the mean is over the
    classes in its targets. The loss is not a sum over pixels: its value depends on which images share a
    batch.
    """

    def __init__(self, num_classes: int, ignore_index: int, smooth: float, aux_weight: float):
        super().__init__(aux_weight)
        self.num_classes, self.ignore_index, self.smooth = num_classes, ignore_index, smooth

    def of_head(self, head: Output, labels: Tensor) -> tuple[Tensor, Tensor]:
        target = labels  # B×H×W
        valid = target != self.ignore_index
        probabilities = head.upsampled().softmax(1)  # B×C×H×W
        classes = target.clamp(0, self.num_classes - 1)
        true_probability = probabilities.gather(1, classes[:, None])[:, 0] * valid  # B×H×W
        # Summed per image row first: one-hot targets would take as much memory as the probabilities, and a
        # single float32 sum over all pixels would be inexact.
        zeros = probabilities.new_zeros(*target.shape[:2], self.num_classes)  # B×H×C
        hit = zeros.scatter_add(2, classes, true_probability).sum((0, 1))  # C: intersection
        pixels = zeros.scatter_add(2, classes, valid.to(zeros.dtype)).sum((0, 1))  # C
        union = (probabilities * valid[:, None]).sum((0, 2, 3)) + pixels - hit  # C
        present = (pixels > 0).float()
        loss = ((1 - (hit + self.smooth) / (union + self.smooth)) * present).sum() / present.sum().clamp_min(
            1
        )
        images = len(target) * valid.any().float()
        return loss * images, images


def jaccard(
    num_classes: int,
    ignore_index: int,
    smooth: Annotated[float, between(0, 1_000_000)] = 1.0,
    aux_weight: Annotated[float, NOT_NEGATIVE] = 0.4,
    target: Target = CLASSES,
    task_activation: str = "softmax",
) -> Jaccard:
    """Soft Jaccard (IoU) loss of the classes in the batch (Rahman & Wang 2016); small classes weigh as much
    as large ones.

    Options:
        smooth: pixels added to intersection and union, to stabilise the loss of classes with few pixels
        aux_weight: weight of the losses of auxiliary heads
    """
    check_classes("jaccard", target)
    check_activation("jaccard", "softmax", task_activation)
    return Jaccard(num_classes, ignore_index, smooth, aux_weight)


class WeightedSum(nn.Module):
    """`(w · Σ factor · total / weight, w)` of several losses, where w is the weight of the first loss.

    A loss with weight 0 adds nothing; if the first loss has weight 0, the result is (0, 0).
    """

    def __init__(self, losses: list[nn.Module], factors: list[float]):
        super().__init__()
        self.losses, self.factors = nn.ModuleList(losses), factors

    def forward(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor]:
        # The main logits are upsampled once for all losses, auxiliary logits by the losses that use them.
        output = output._replace(logits=output.upsampled())
        parts = [loss(output, target) for loss in self.losses]
        # total / infinity and its gradient are exactly 0.
        mean = sum(
            factor * total / torch.where(weight > 0, weight, torch.inf)
            for factor, (total, weight) in zip(self.factors, parts, strict=True)
        )
        return mean * parts[0][1], parts[0][1]
