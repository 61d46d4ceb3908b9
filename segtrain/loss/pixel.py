"""Losses that are a sum over pixels, each with the weight of its class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segtrain.loss.heads import Head, HeadLoss, Wants


class PixelLoss(HeadLoss):
    """Base class of losses that weigh each pixel by the weight of its class. weights: float32[C], None for
    equal ones."""

    def __init__(self, weights: Tensor | None, ignore_index: int, aux_weight: float):
        super().__init__(aux_weight)
        self.register_buffer("weights", weights)
        self.has_zero_weights = weights is not None and not bool(weights.all())
        self.ignore_index = ignore_index

    def wants(self, logits: Tensor) -> Wants | None:
        return Wants(self.ignore_index)

    def pixel_weights(self, target: Tensor) -> Tensor:
        """The weight of each pixel, B×H×W float32: that of its class, 0 where there is no label."""
        labelled = target != self.ignore_index
        return labelled.float() if self.weights is None else of_class(self.weights, target) * labelled

    def without_zero_weights(self, target: Tensor) -> Tensor:
        """The target, B×H×W, with the ignore index where the weight of the class is 0."""
        if not self.has_zero_weights:
            return target
        return target.masked_fill(of_class(self.weights, target) == 0, self.ignore_index)


def of_class(values: Tensor, target: Tensor) -> Tensor:
    """The value of each pixel's class, B×H×W, from one value a class; that of an arbitrary class where there
    is no label."""
    return values[target.clamp(0, len(values) - 1)]


def softmax_loss(
    head: Head,
    target: Tensor,
    ignore_index: int,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    gamma: float = 0.0,
) -> Tensor:
    """Loss of each pixel, B×H×W float32; 0, with gradient 0, where there is no label.

    w_y · (1 - p_y)^gamma · -log p_y with p = softmax(logits): cross-entropy for gamma 0, else the focal loss
    (Lin et al. 2017, eq. 5). smoothing: label smoothing as in `torch.nn.functional.cross_entropy`, with gamma
    0 and without `head.banded` only.
    """
    if gamma == 0 and not head.banded:
        return F.cross_entropy(
            head.upsampled(),
            target,
            weights,
            ignore_index=ignore_index,
            label_smoothing=smoothing,
            reduction="none",
        )
    assert smoothing == 0
    loss = (
        head.terms.nll
        if head.banded
        else F.cross_entropy(head.upsampled(), target, ignore_index=ignore_index, reduction="none")
    )
    if gamma == 0:
        return loss if weights is None else of_class(weights, target) * loss
    # 1 - p, above 0: the slope of its power would be infinite at 0 where gamma < 1.
    missing = -torch.expm1(-loss).clamp_max(-torch.finfo(loss.dtype).tiny)
    loss = missing**gamma * loss
    return loss if weights is None else of_class(weights, target) * loss
