"""Binary cross-entropy of each class against all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.loss.class_weights import Weighting, weights_of
from segtrain.loss.heads import Head, check_activation, check_classes, label_targets
from segtrain.loss.pixel import PixelLoss
from segtrain.options import NOT_NEGATIVE, between
from segtrain.sample import CLASSES, Output, Target


class BinaryCrossEntropy(PixelLoss):
    """`(Σ w_y · Σ_c a_c · (1 - q_c)^gamma · -log q_c, Σ w_y)` over the labelled pixels, float32 scalars; w:
    class weights.

    q_c is sigmoid(z_c) for the class of the pixel and 1 - sigmoid(z_c) for every other class c; a_c is
    alpha_c, else 1 - alpha_c. gamma 0, without alpha: binary cross-entropy; else the focal loss (Lin et al.
    2017, eq. 5). alpha: float32[C], None for a = 1.
    """

    def __init__(
        self,
        weights: Tensor | None,
        ignore_index: int,
        aux_weight: float,
        gamma: float = 0.0,
        alpha: Tensor | None = None,
    ):
        super().__init__(weights, ignore_index, aux_weight)
        self.register_buffer("alpha", alpha)
        self.gamma = gamma

    def wants(self, logits: Tensor) -> None:
        return None

    def of_head(self, head: Head, labels: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.pixel_weights(labels)  # B×H×W
        losses = sigmoid_loss(head.upsampled(), labels, self.gamma, self.alpha)
        return (losses * weights).sum(), weights.sum()


class LabelCrossEntropy(BinaryCrossEntropy):
    """`(Σ w · a · (1 - q)^gamma · -log q, Σ w)` over the known values of T labels, float32 scalars: q is
    sigmoid(z) where the label holds, else 1 - sigmoid(z); a is alpha where it holds, else 1 - alpha.

    weights: of the pixels without and with the label, float32[2]; None for 1. alpha: float32[T].
    """

    def labels(self, output: Output, target: Tensor) -> Tensor:
        return label_targets(output, target).long()  # B×T×H×W

    def of_head(self, head: Head, labels: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.pixel_weights(labels)  # B×T×H×W
        logits, holds = head.upsampled(), labels == 1
        losses = focused(torch.where(holds, -logits, logits), self.gamma)
        if self.alpha is not None:
            alpha = self.alpha.view(1, -1, 1, 1)
            losses = losses * torch.where(holds, alpha, 1 - alpha)
        return (losses * weights).sum(), weights.sum()


def focused(wrong: Tensor, gamma: float) -> Tensor:
    """sigmoid(wrong)^gamma · -log sigmoid(-wrong), elementwise. wrong: the logit of the wrong answer."""
    losses = -F.logsigmoid(-wrong)
    # A power of sigmoid(wrong) that is exact, with its gradient, however small it is.
    return (gamma * F.logsigmoid(wrong)).exp() * losses if gamma else losses


def loss_of(name: str, target: Target, class_weights) -> type[BinaryCrossEntropy]:
    """The class of the loss for the targets of a task. ConfigError if it has neither classes nor labels, or
    labels without classes whose pixels the weights could be of."""
    if target.labels:
        if class_weights != "none" and target.multilabel:
            raise ConfigError(
                f"loss.class_weights={class_weights} weighs pixels by their class, and a pixel of this task "
                f"has any number of labels; leave it out"
            )
        return LabelCrossEntropy
    check_classes(name, target)
    return BinaryCrossEntropy


def sigmoid_loss(logits: Tensor, target: Tensor, gamma: float = 0.0, alpha: Tensor | None = None) -> Tensor:
    """Loss of each pixel, summed over its classes: B×H×W float32 from B×C×H×W float32 logits. Pixels
    without a label have the loss of an arbitrary class."""
    classes = target.clamp(0, logits.shape[1] - 1)[:, None]  # B×1×H×W
    # Towards the wrong answer: -z for the class of the pixel, z for all others.
    wrong = logits.scatter(1, classes, -logits.gather(1, classes))  # B×C×H×W
    losses = focused(wrong, gamma)
    if alpha is not None:
        shares = alpha.view(1, -1, 1, 1).expand_as(losses)
        losses = losses * (1 - shares).scatter(1, classes, shares.gather(1, classes))
    return losses.sum(1)


def binary_cross_entropy(
    num_classes: int,
    ignore_index: int,
    class_frequency: Callable,
    class_weights: Weighting | list[Annotated[float, NOT_NEGATIVE]] = "none",
    weight_power: Annotated[float, between(-10, 10)] = 1.0,
    aux_weight: Annotated[float, NOT_NEGATIVE] = 0.4,
    target: Target = CLASSES,
    task_activation: str = "sigmoid",
) -> BinaryCrossEntropy:
    """Cross-entropy of one sigmoid a class, each class against all others; needs task.activation=sigmoid.

    Summed over the classes of a pixel (torch's own takes their mean); the mean is over pixels.

    Options:
        class_weights: none, inverse, median, enet or a list, as in cross_entropy: the weight of each pixel
            in all its terms is that of its class
        weight_power: exponent of the class weights; 0.5 takes their square root
        aux_weight: weight of the losses of auxiliary heads
    """
    made = loss_of("binary_cross_entropy", target, class_weights)
    check_activation("binary_cross_entropy", "sigmoid", task_activation)
    weights = weights_of(class_weights, weight_power, num_classes, class_frequency)
    return made(weights, ignore_index, aux_weight)
