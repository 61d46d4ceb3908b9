"""Cross-entropy of the hardest pixels (online hard example mining)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.loss.class_weights import Weighting, weights_of
from segtrain.loss.heads import Head, check_activation, check_classes
from segtrain.loss.pixel import PixelLoss, softmax_loss
from segtrain.options import FROM_0, NOT_NEGATIVE, WITHIN_0_1, between
from segtrain.sample import CLASSES, Target

LEAST_SHARE = 1 / 16
"""Share of the labelled pixels that count at least without min_kept, as in BiSeNet's code."""


class HardPixels(PixelLoss):
    """`(B · Σ w_y · l / Σ w_y, B)` over the hardest labelled pixels of the batch, float32 scalars; (0, 0) if
    no pixel is labelled. l: cross-entropy; w: class weights, which do not change what is hard.

    Which pixels are hard depends on which images share a batch, so the loss is not a sum over pixels. Each
    head has its own hard pixels.
    """

    def __init__(
        self,
        weights: Tensor | None,
        ignore_index: int,
        aux_weight: float,
        threshold: float,
        min_kept: int | None = None,
        top_k: float | None = None,
        ramp_steps: int = 0,
    ):
        super().__init__(weights, ignore_index, aux_weight)
        self.threshold, self.min_kept = threshold, min_kept
        self.top_k, self.ramp_steps = top_k, ramp_steps

    def of_head(self, head: Head, labels: Tensor) -> tuple[Tensor, Tensor]:
        losses = softmax_loss(head, labels, self.ignore_index)  # B×H×W
        valid = labels != self.ignore_index
        hard = valid & (losses.detach() >= self._least(losses.detach(), valid, head.step))
        weights = self.pixel_weights(labels)
        total = (losses * weights * hard).sum()
        divisor = (weights * hard).sum()
        images = len(labels) * (weights.sum() > 0).float()
        return total / torch.where(divisor > 0, divisor, torch.inf) * images, images

    def _least(self, losses: Tensor, valid: Tensor, step: int) -> Tensor:
        """The loss from which on a pixel is hard, a scalar; -1 where fewer pixels are labelled than are to be
        kept."""
        falling = losses.masked_fill(~valid, -1.0).flatten().sort(descending=True).values
        kept = self._kept(valid, step).clamp_max(len(falling))
        of_kept = torch.where(kept > 0, falling.take((kept - 1).clamp_min(0)), torch.inf)
        return of_kept if self.top_k is not None else of_kept.clamp_max(-math.log(self.threshold))

    def _kept(self, valid: Tensor, step: int) -> Tensor:
        """The number of pixels that are hard at least, an int64 scalar."""
        labelled = valid.sum()
        if self.top_k is not None:
            return _share_of(labelled, share_at(step, self.top_k, self.ramp_steps))
        if self.min_kept is None:
            return _share_of(labelled, LEAST_SHARE)
        return torch.full_like(labelled, self.min_kept * len(valid))


def share_at(step: int, top_k: float, ramp_steps: int) -> float:
    """The share of pixels at an optimizer step: linear from 1 at step 0 to `top_k` at `ramp_steps`, then
    constant."""
    progress = min(1.0, step / ramp_steps) if ramp_steps else 1.0
    return 1 - (1 - top_k) * progress


def _share_of(number: Tensor, share: float) -> Tensor:
    """The share of an integer scalar, rounded, at least 1."""
    # The rest is rounded: with share 1 it is exactly 0, also where float32 cannot hold the number.
    return (number - (number * (1 - share)).round().long()).clamp_min(1)


def ohem(
    num_classes: int,
    ignore_index: int,
    class_frequency: Callable,
    threshold: Annotated[float, WITHIN_0_1] = 0.7,
    min_kept: Annotated[int, FROM_0] | None = None,
    top_k: Annotated[float, between(0.0001, 1)] | None = None,
    ramp_steps: Annotated[int, FROM_0] = 0,
    class_weights: Weighting | list[Annotated[float, NOT_NEGATIVE]] = "none",
    weight_power: Annotated[float, between(-10, 10)] = 1.0,
    aux_weight: Annotated[float, NOT_NEGATIVE] = 0.4,
    target: Target = CLASSES,
    task_activation: str = "softmax",
) -> HardPixels:
    """Cross-entropy of the hard pixels of a batch alone: those whose class has a low probability, or a share
    of them all (top_k).

    With trainer.accumulate, hard pixels are chosen within each micro-batch.

    Options:
        threshold: a pixel is hard if the probability of its class is at most this; without effect with top_k
        min_kept: number of hard pixels at least, times the images of the micro-batch: the hardest ones (on
            Cityscapes often 100000); null: a sixteenth of the labelled pixels
        top_k: share of the labelled pixels that are hard, in place of a threshold; null: threshold
        ramp_steps: optimizer steps over which the share falls linearly from 1 to top_k
        class_weights: none, inverse, median, enet or a list, as in cross_entropy; they do not change which
            pixels are hard
        weight_power: exponent of the class weights; 0.5 takes their square root
        aux_weight: weight of the losses of auxiliary heads
    """
    check_classes("ohem", target)
    check_activation("ohem", "softmax", task_activation)
    if top_k is None and ramp_steps:
        raise ConfigError(f"loss.ramp_steps={ramp_steps} needs loss.top_k; set it, or use loss.ramp_steps=0")
    if top_k is not None and min_kept is not None:
        raise ConfigError(
            f"loss.top_k={top_k} and loss.min_kept={min_kept} exclude each other; set one of them to null"
        )
    weights = weights_of(class_weights, weight_power, num_classes, class_frequency)
    return HardPixels(weights, ignore_index, aux_weight, threshold, min_kept, top_k, ramp_steps)
