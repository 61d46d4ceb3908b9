"""Cross-entropy over all labelled pixels, and class weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.loss.border import Border
from segtrain.loss.heads import HeadLoss, check_activation, check_classes
from segtrain.options import NOT_NEGATIVE, SHARE, between
from segtrain.sample import CLASSES, Facts, Output, Target

Weighting = Literal["none", "inverse", "median", "enet"]


def class_weights(rule: str, power: float, pixels: Tensor, in_images: Tensor) -> Tensor:
    """float32[C]: class weights by a rule, raised to `power`; 1 for classes that are absent from the training
    split.

    pixels: int[C], labelled pixels of each class. in_images: int[C], labelled pixels of all images that
    contain the class.

    inverse: mean share of a class / share. median: median share / share, with shares over the images that
    contain the class (Eigen & Fergus 2015; SegNet). enet: 1 / ln(1.02 + share) (Paszke et al. 2016).
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


class CrossEntropy(HeadLoss):
    """`(total, weight)`, float32 scalars: `(Σ w · -log softmax(z)_y, Σ w)` over the labelled pixels.

    w is the class weight of the pixel's class y, plus the border weight of the pixel (`border`: targets ->
    B×H×W). If all weights are 0, total and gradient are exactly 0.

    With label smoothing ε, the loss of a pixel is that of `torch.nn.functional.cross_entropy`,
    (1 - ε) · w_y · nll_y + ε / C · Σ_c w_c · nll_c, but 0 where w_y is 0. (torch keeps the second term there,
    so a batch of such pixels alone would have a positive loss and no weight to divide it by.)
    """

    def __init__(
        self,
        weights: Tensor | None,
        ignore_index: int,
        smoothing: float,
        aux_weight: float,
        border: Border | None = None,
    ):
        super().__init__(aux_weight)
        self.register_buffer("weights", weights)
        self.has_zero_weights = weights is not None and not bool(weights.all())
        self.ignore_index, self.smoothing, self.border = ignore_index, smoothing, border

    def labels(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """The target and the border weights, B×H×W."""
        # Objects outside the window add weight inside it, so the map is made from the whole target.
        border = None if self.border is None else output.crop(self.border(target))
        return super().labels(output, target), border

    def of_head(self, head: Output, labels: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        return self._total(head.upsampled(), *labels), self._weight(*labels)

    def _total(self, logits: Tensor, target: Tensor, border: Tensor | None) -> Tensor:
        # logits B×C×H×W, target and border B×H×W
        common = {"ignore_index": self.ignore_index, "label_smoothing": self.smoothing}
        total = F.cross_entropy(
            logits, self._without_zero_weights(target), weight=self.weights, reduction="sum", **common
        )
        return (
            total
            if border is None
            else total + (border * F.cross_entropy(logits, target, reduction="none", **common)).sum()
        )

    def _without_zero_weights(self, target: Tensor) -> Tensor:
        """The target, B×H×W, with the ignore index where the weight of the class is 0."""
        if not self.has_zero_weights:
            return target
        return target.masked_fill(self._weights_of(target) == 0, self.ignore_index)

    def _weights_of(self, target: Tensor) -> Tensor:
        """The weight of each pixel's class, B×H×W; that of an arbitrary class where there is no label."""
        return self.weights[target.clamp(0, len(self.weights) - 1)]

    def _weight(self, target: Tensor, border: Tensor | None) -> Tensor:
        valid = target != self.ignore_index
        added = 0.0 if border is None else (border * valid).sum()
        if self.weights is None:
            return valid.sum().float() + added
        return (self._weights_of(target) * valid).sum() + added


def cross_entropy(
    num_classes: int,
    ignore_index: int,
    class_frequency: Callable,
    class_weights: Weighting | list[Annotated[float, NOT_NEGATIVE]] = "none",
    weight_power: Annotated[float, between(-10, 10)] = 1.0,
    smoothing: Annotated[float, SHARE] = 0.0,
    aux_weight: Annotated[float, NOT_NEGATIVE] = 0.4,
    border_weight: Annotated[float, NOT_NEGATIVE] = 0.0,
    border_sigma: Annotated[float, between(0.1, 1000)] = 5.0,
    facts: Facts | None = None,
    target: Target = CLASSES,
    task_activation: str = "softmax",
) -> CrossEntropy:
    """Softmax cross-entropy, with optional class weights and weights between close objects (U-Net).

    Options:
        class_weights: none; inverse, median (median frequency balancing, as SegNet) or enet, from the class
            frequencies of the training split; or a list with one weight per class
        weight_power: exponent of the class weights; 0.5 takes their square root
        smoothing: label smoothing, the share of the target that is spread evenly over all classes; pixels
            whose class weight is 0 still have no loss
        aux_weight: weight of the losses of auxiliary heads
        border_weight: largest weight added to pixels between close objects (U-Net's paper: 10); 0: none.
            Objects are connected components of the thing classes, or of all classes but background if there
            are no thing classes; touching objects of one class count as one
        border_sigma: standard deviation of the border weight, in pixels, over the sum of the distances to the
            two nearest objects
    """
    check_classes("cross_entropy", target)
    check_activation("cross_entropy", "softmax", task_activation)
    if not isinstance(class_weights, str) and len(class_weights) != num_classes:
        raise ConfigError(
            f"loss.class_weights holds {len(class_weights)} numbers; the data has {num_classes} classes"
        )
    border = (
        Border(border_weight, border_sigma, _object_classes(num_classes, facts))
        if border_weight > 0
        else None
    )
    return CrossEntropy(
        _weights(class_weights, weight_power, class_frequency), ignore_index, smoothing, aux_weight, border
    )


def _object_classes(num_classes: int, facts: Facts | None) -> tuple[int, ...]:
    """Indices of the classes whose connected components are objects."""
    if facts is not None and facts.things:
        return facts.things
    return tuple(
        index for index in range(num_classes) if facts is None or facts.classes[index] != "background"
    )


def _weights(rule, power: float, class_frequency) -> Tensor | None:
    """float32[C]: class weights by a rule or from a list, raised to `power`; None without class weights."""
    if rule == "none":
        return None
    if isinstance(rule, str):
        frequency = class_frequency()
        weights = class_weights(
            rule, power, torch.as_tensor(frequency.pixels), torch.as_tensor(frequency.in_images)
        )
    else:
        weights = torch.tensor(rule, dtype=torch.float32) ** power
    wrong = (
        "infinite for some class"
        if not weights.isfinite().all()
        else None
        if weights.any()
        else "0 for all classes"
    )
    if wrong:
        raise ConfigError(
            f"loss.class_weights={rule} to the power of loss.weight_power={power} is {wrong}; use another "
            f"power or other weights"
        )
    return weights
