"""Cross-entropy over all labelled pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.sample import Output

Weighting = Literal["none", "inverse", "median", "enet"]


def class_weights(rule: str, power: float, pixels: Tensor, in_images: Tensor) -> Tensor:
    """C float32 weights to the power given; a class that the training split does not hold gets 1 (it has no pixel that could count).

    pixels: labelled pixels of each class. in_images: labelled pixels of the images that hold the class.
    inverse: mean share of a class / share. median: median share / share, shares taken over the images that hold the class
    (Eigen & Fergus 2015; SegNet). enet: 1 / ln(1.02 + share) (Paszke et al. 2016).
    """
    pixels, in_images = pixels.double(), in_images.double()
    present = pixels > 0
    share = (pixels / pixels.sum().clamp_min(1))[present]
    share_where_present = (pixels / in_images.clamp_min(1))[present]
    weights = torch.ones_like(pixels)
    if rule == "inverse":
        weights[present] = share.mean() / share
    elif rule == "median":
        weights[present] = share_where_present.quantile(0.5) / share_where_present
    elif rule == "enet":
        weights[present] = 1 / torch.log(1.02 + share)
    return (weights**power).float()


class CrossEntropy(nn.Module):
    """`(Σ w_y · -log softmax(z)_y, Σ w_y)` over the labelled pixels, both float32; (0, 0) when there is none."""

    def __init__(self, weights: Tensor | None, ignore_index: int, smoothing: float, aux_weight: float):
        super().__init__()
        self.register_buffer("weights", weights)
        self.ignore_index, self.smoothing, self.aux_weight = ignore_index, smoothing, aux_weight

    def forward(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor]:
        target = output.crop(target).long()
        total = self._total(output.upsampled(), target)
        for logits in output.aux:
            total = total + self.aux_weight * self._total(output.upsampled(logits), target)
        return total, self._weight(target)

    def _total(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            logits, target, weight=self.weights, ignore_index=self.ignore_index, label_smoothing=self.smoothing, reduction="sum"
        )

    def _weight(self, target: Tensor) -> Tensor:
        valid = target != self.ignore_index
        if self.weights is None:
            return valid.sum().float()
        # A class index is needed where there is none; those pixels are multiplied by 0.
        return (self.weights[target.clamp(0, len(self.weights) - 1)] * valid).sum()


def cross_entropy(
    num_classes: int,
    ignore_index: int,
    class_frequency: Callable,
    class_weights: Weighting | list[float] = "none",
    weight_power: float = 1.0,
    smoothing: float = 0.0,
    aux_weight: float = 0.4,
) -> CrossEntropy:
    """Softmax cross-entropy, optionally weighted by class.

    Options:
        class_weights: none, inverse, median or enet, from the pixels of the training split; or one number a class
        weight_power: exponent of the weights; 0.5 takes their square root
        smoothing: share of the target that is spread evenly over all classes
        aux_weight: factor of the loss of auxiliary heads
    """
    if not isinstance(class_weights, str) and len(class_weights) != num_classes:
        raise ConfigError(f"loss.class_weights holds {len(class_weights)} numbers; the data has {num_classes} classes")
    if not isinstance(class_weights, str) and (min(class_weights) < 0 or max(class_weights) == 0):
        raise ConfigError(f"loss.class_weights is {class_weights}; allowed: numbers from 0, not all of them 0")
    if aux_weight < 0:
        raise ConfigError(f"loss.aux_weight is {aux_weight}; allowed: a number from 0")
    if not 0 <= smoothing < 1:
        raise ConfigError(f"loss.smoothing is {smoothing}; allowed: from 0 to below 1")
    return CrossEntropy(_weights(class_weights, weight_power, class_frequency), ignore_index, smoothing, aux_weight)


def _weights(rule, power: float, class_frequency) -> Tensor | None:
    if rule == "none":
        return None
    if not isinstance(rule, str):
        return torch.tensor(rule, dtype=torch.float32) ** power
    frequency = class_frequency()
    return class_weights(rule, power, torch.as_tensor(frequency.pixels), torch.as_tensor(frequency.in_images))
