"""Cross-entropy over all labelled pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.sample import Output

Weighting = Literal["none", "inverse", "sqrt_inverse", "median", "sqrt_median", "enet"]


def class_weights(rule: str, pixels: Tensor, in_images: Tensor) -> Tensor:
    """C float32 weights; a class that the training split does not hold gets 1 (it has no pixel that could count).

    pixels: labelled pixels of each class. in_images: labelled pixels of the images that hold the class.
    inverse: 1 / share of the class, scaled to mean 1; sqrt_inverse: 1 / its square root, likewise. median: median share / share,
    shares taken over the images that hold the class (Eigen & Fergus 2015; SegNet). sqrt_median: its square root.
    enet: 1 / ln(1.02 + share) (Paszke et al. 2016).
    """
    pixels, in_images = pixels.double(), in_images.double()
    present = pixels > 0
    share = pixels / pixels.sum().clamp_min(1)
    share_where_present = pixels / in_images.clamp_min(1)
    weights = torch.ones_like(pixels)
    if rule == "inverse":
        weights[present] = 1 / share[present]
        weights[present] /= weights[present].mean()
    elif rule == "sqrt_inverse":
        weights[present] = share[present].rsqrt()
        weights[present] /= weights[present].mean()
    elif rule in ("median", "sqrt_median"):
        median = share_where_present[present].quantile(0.5)
        weights[present] = median / share_where_present[present]
        weights = weights.sqrt() if rule == "sqrt_median" else weights
    elif rule == "enet":
        weights[present] = 1 / torch.log(1.02 + share[present])
    return weights.float()


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
    smoothing: float = 0.0,
    aux_weight: float = 0.4,
) -> CrossEntropy:
    """Softmax cross-entropy, optionally weighted by class.

    Options:
        class_weights: none, inverse, sqrt_inverse, median, sqrt_median or enet, from the pixels of the training split;
            or one number a class
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
    return CrossEntropy(_weights(class_weights, class_frequency), ignore_index, smoothing, aux_weight)


def _weights(rule, class_frequency) -> Tensor | None:
    if rule == "none":
        return None
    if not isinstance(rule, str):
        return torch.tensor(rule, dtype=torch.float32)
    frequency = class_frequency()
    return class_weights(rule, torch.as_tensor(frequency.pixels), torch.as_tensor(frequency.in_images))
