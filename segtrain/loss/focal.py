"""Focal losses: pixels that are already classified well count less (Lin et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.loss.binary_cross_entropy import BinaryCrossEntropy, loss_of
from segtrain.loss.class_weights import Weighting, weights_of
from segtrain.loss.heads import Head, check_activation, check_classes
from segtrain.loss.pixel import PixelLoss, softmax_loss
from segtrain.options import NOT_NEGATIVE, PROBABILITY, between
from segtrain.sample import CLASSES, Target
from segtrain.text import count

Gamma = Annotated[float, between(0, 20)]
Alpha = Annotated[float, between(0, 1000)]


class FocalSoftmax(PixelLoss):
    """`(Σ α_y · w_y · (1 - p_y)^gamma · -log p_y, Σ w_y)` over the labelled pixels, float32 scalars, with
    p = softmax(logits); w: class weights. alpha: float32[C], None for 1."""

    def __init__(
        self,
        weights: Tensor | None,
        alpha: Tensor | None,
        gamma: float,
        ignore_index: int,
        aux_weight: float,
    ):
        super().__init__(weights, ignore_index, aux_weight)
        self.gamma = gamma
        factors = [one for one in (weights, alpha) if one is not None]
        self.register_buffer("factors", torch.stack(factors).prod(0) if factors else None)

    def of_head(self, head: Head, labels: Tensor) -> tuple[Tensor, Tensor]:
        losses = softmax_loss(  # B×H×W
            head, labels, self.ignore_index, self.factors, gamma=self.gamma
        )
        return losses.sum(), self.pixel_weights(labels).sum()


def focal_softmax(
    num_classes: int,
    ignore_index: int,
    class_frequency: Callable,
    gamma: Gamma = 2.0,
    alpha: Alpha | list[Alpha] | None = None,
    class_weights: Weighting | list[Annotated[float, NOT_NEGATIVE]] = "none",
    weight_power: Annotated[float, between(-10, 10)] = 1.0,
    aux_weight: Annotated[float, NOT_NEGATIVE] = 0.4,
    target: Target = CLASSES,
    task_activation: str = "softmax",
) -> FocalSoftmax:
    """Focal loss of a softmax (Lin et al. 2017): cross-entropy times (1 - p)^gamma, p the probability of the
    right class.

    Options:
        gamma: exponent; 0 gives cross-entropy, larger values count well classified pixels less
        alpha: factor of the loss, one for all or one per class; null: 1. Unlike a class weight it is not in
            the weight that the sum is divided by
        class_weights: none, inverse, median, enet or a list, as in cross_entropy
        weight_power: exponent of the class weights; 0.5 takes their square root
        aux_weight: weight of the losses of auxiliary heads
    """
    check_classes("focal_softmax", target)
    check_activation("focal_softmax", "softmax", task_activation)
    weights = weights_of(class_weights, weight_power, num_classes, class_frequency)
    return FocalSoftmax(weights, _alpha_of(alpha, num_classes), gamma, ignore_index, aux_weight)


def focal_sigmoid(
    num_classes: int,
    ignore_index: int,
    class_frequency: Callable,
    gamma: Gamma = 2.0,
    alpha: Annotated[float, PROBABILITY] | list[Annotated[float, PROBABILITY]] | None = None,
    class_weights: Weighting | list[Annotated[float, NOT_NEGATIVE]] = "none",
    weight_power: Annotated[float, between(-10, 10)] = 1.0,
    aux_weight: Annotated[float, NOT_NEGATIVE] = 0.4,
    target: Target = CLASSES,
    task_activation: str = "sigmoid",
) -> BinaryCrossEntropy:
    """Focal loss of one sigmoid a class, each class against all others (Lin et al. 2017); needs
    task.activation=sigmoid.

    Summed over the classes of a pixel; the mean is over pixels.

    Options:
        gamma: exponent; 0 gives binary cross-entropy, larger values count well classified pixels less
        alpha: share of a class's own pixels, the others have 1 - alpha (RetinaNet: 0.25); one for all or one
            per class; null: both have 1
        class_weights: none, inverse, median, enet or a list, as in cross_entropy: the weight of each pixel
            in all its terms is that of its class
        weight_power: exponent of the class weights; 0.5 takes their square root
        aux_weight: weight of the losses of auxiliary heads
    """
    made = loss_of("focal_sigmoid", target, class_weights)
    check_activation("focal_sigmoid", "sigmoid", task_activation)
    weights = weights_of(class_weights, weight_power, num_classes, class_frequency)
    num = target.num_labels(num_classes) if target.labels else num_classes
    return made(weights, ignore_index, aux_weight, gamma, _alpha_of(alpha, num))


def _alpha_of(alpha: float | list[float] | None, num_classes: int) -> Tensor | None:
    """float32[C]; None without alpha."""
    if alpha is None:
        return None
    values = alpha if isinstance(alpha, list) else [alpha] * num_classes
    if len(values) != num_classes:
        raise ConfigError(
            f"loss.alpha holds {len(values)} numbers; the network has {count(num_classes, 'output')}; give "
            f"one number, or one for each"
        )
    return torch.tensor(values, dtype=torch.float32)
