"""The soft Jaccard loss: 1 - IoU, computed from probabilities instead of decisions."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from segtrain.loss.heads import HeadLoss, of_heads
from segtrain.loss.region import Region, region_of
from segtrain.options import NOT_NEGATIVE, between
from segtrain.sample import CLASSES, Output, Target


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


class WeightedSum(nn.Module):
    """`(w · Σ factor · total / weight, w)` of several losses, where w is the weight of the first loss.

    A loss with weight 0 adds nothing; if the first loss has weight 0, the result is (0, 0).
    """

    def __init__(self, losses: list[nn.Module], factors: list[float]):
        super().__init__()
        self.losses, self.factors = nn.ModuleList(losses), factors

    def forward(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor]:
        heads = [loss for loss in self.losses if isinstance(loss, HeadLoss)]
        together = dict(zip(heads, of_heads(heads, output, target), strict=True))
        parts = [together[loss] if loss in together else loss(output, target) for loss in self.losses]
        # total / infinity and its gradient are exactly 0.
        mean = sum(
            factor * total / torch.where(weight > 0, weight, torch.inf)
            for factor, (total, weight) in zip(self.factors, parts, strict=True)
        )
        return mean * parts[0][1], parts[0][1]
