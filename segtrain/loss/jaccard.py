"""The soft Jaccard loss: one minus IoU, with probabilities in the place of decisions."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from segtrain.options import between
from segtrain.sample import Output


class Jaccard(nn.Module):
    """`(B · mean over classes of 1 - IoU, B)`, both float32, over the batch as one set of pixels; (0, 0) when
    nothing is labelled.

    Only classes that the batch holds count. Unlabelled pixels are left out of intersection and union. The
    value depends on how
    images are grouped into batches: it is not a sum over pixels.
    """

    def __init__(self, num_classes: int, ignore_index: int, smooth: float):
        super().__init__()
        self.num_classes, self.ignore_index, self.smooth = num_classes, ignore_index, smooth

    def forward(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor]:
        target = output.crop(target).long()
        valid = target != self.ignore_index
        chance = output.upsampled().softmax(1)
        classes = target.clamp(0, self.num_classes - 1)
        picked = chance.gather(1, classes[:, None])[:, 0] * valid
        # Summed by class row by row: one-hot targets would be as large as the probabilities, and one long
        # float32 sum inexact.
        zeros = chance.new_zeros(*target.shape[:2], self.num_classes)
        hit = zeros.scatter_add(2, classes, picked).sum((0, 1))
        pixels = zeros.scatter_add(2, classes, valid.to(chance.dtype)).sum((0, 1))
        union = (chance * valid[:, None]).sum((0, 2, 3)) + pixels - hit
        present = (pixels > 0).float()
        loss = ((1 - (hit + self.smooth) / (union + self.smooth)) * present).sum() / present.sum().clamp_min(
            1
        )
        images = len(target) * valid.any().float()
        return loss * images, images


def jaccard(
    num_classes: int, ignore_index: int, smooth: Annotated[float, between(0, 1_000_000)] = 1.0
) -> Jaccard:
    """Soft Jaccard (IoU) of the classes in the batch (Rahman & Wang 2016); weighs small classes like large
    ones.

    Options:
        smooth: pixels added to intersection and union, which calms classes of a few pixels
    """
    return Jaccard(num_classes, ignore_index, smooth)


class WeightedSum(nn.Module):
    """`Σ factor · total / weight` of several losses, over the weight of the first one."""

    def __init__(self, losses: list[nn.Module], factors: list[float]):
        super().__init__()
        self.losses, self.factors = nn.ModuleList(losses), factors

    def forward(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor]:
        # Upsampled once for all of them; auxiliary heads are upsampled where a loss asks for them.
        output = output._replace(logits=output.upsampled())
        parts = [loss(output, target) for loss in self.losses]
        # A loss without weight adds nothing: total / infinity and its gradient are exactly 0.
        mean = sum(
            factor * total / torch.where(weight > 0, weight, torch.inf)
            for factor, (total, weight) in zip(self.factors, parts, strict=True)
        )
        return mean * parts[0][1], parts[0][1]
