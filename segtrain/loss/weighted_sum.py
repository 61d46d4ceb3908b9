"""The weighted sum of several losses. Its factory stands beside the table LOSS, whose losses it builds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segtrain.loss.heads import HeadLoss, of_heads
from segtrain.sample import Output


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
