"""The soft Jaccard loss: one minus IoU, with probabilities in the place of decisions."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.options import between
from segtrain.sample import CLASSES, Output, Target


class Jaccard(nn.Module):
    """`(B · mean over classes of (1 - soft IoU), B)`, float32 scalars; (0, 0) where nothing is labelled.

    Intersection and union are summed over the labelled pixels of the whole batch, and the mean is over the
    classes in its targets. So the value is no sum over pixels: it depends on which images share a batch.
    """

    def __init__(self, num_classes: int, ignore_index: int, smooth: float):
        super().__init__()
        self.num_classes, self.ignore_index, self.smooth = num_classes, ignore_index, smooth

    def forward(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor]:
        target = output.crop(target).long()  # B×H×W
        valid = target != self.ignore_index
        probabilities = output.upsampled().softmax(1)  # B×C×H×W
        classes = target.clamp(0, self.num_classes - 1)
        true_probability = probabilities.gather(1, classes[:, None])[:, 0] * valid  # B×H×W
        # Per image row first: one-hot targets would take as much memory as the probabilities, and one float32
        # sum over all pixels would be inexact.
        zeros = probabilities.new_zeros(*target.shape[:2], self.num_classes)  # B×H×C
        hit = zeros.scatter_add(2, classes, true_probability).sum((0, 1))  # C
        pixels = zeros.scatter_add(2, classes, valid.to(zeros.dtype)).sum((0, 1))
        union = (probabilities * valid[:, None]).sum((0, 2, 3)) + pixels - hit
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
    target: Target = CLASSES,
) -> Jaccard:
    """Soft Jaccard (IoU) loss of the classes in the batch (Rahman & Wang 2016); small classes weigh as much
    as large ones.

    Options:
        smooth: pixels added to intersection and union, which steadies the loss of classes of a few pixels
    """
    if not target.classes:
        raise ConfigError("loss=jaccard compares classes, and the task has none; choose another loss")
    return Jaccard(num_classes, ignore_index, smooth)


class WeightedSum(nn.Module):
    """`(w · Σ factor · total / weight, w)` of several losses, w the weight of the first one.

    A loss without weight adds nothing; where the first has none, the sum is (0, 0).
    """

    def __init__(self, losses: list[nn.Module], factors: list[float]):
        super().__init__()
        self.losses, self.factors = nn.ModuleList(losses), factors

    def forward(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor]:
        # Upsampled once for all of them; auxiliary heads are upsampled where a loss asks for them.
        output = output._replace(logits=output.upsampled())
        parts = [loss(output, target) for loss in self.losses]
        # total / infinity and its gradient are exactly 0.
        mean = sum(
            factor * total / torch.where(weight > 0, weight, torch.inf)
            for factor, (total, weight) in zip(self.factors, parts, strict=True)
        )
        return mean * parts[0][1], parts[0][1]
