"""Cross-entropy over all labelled pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from segtrain.loss.border import Border
from segtrain.loss.class_weights import Weighting, weights_of
from segtrain.loss.heads import Head, Wants, check_activation, check_classes, foreground
from segtrain.loss.pixel import PixelLoss, softmax_loss
from segtrain.options import NOT_NEGATIVE, SHARE, between
from segtrain.sample import CLASSES, Facts, Output, Target


class CrossEntropy(PixelLoss):
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
        aux_weight: float,
        smoothing: float = 0.0,
        border: Border | None = None,
    ):
        super().__init__(weights, ignore_index, aux_weight)
        self.smoothing, self.border = smoothing, border

    def labels(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """The target and the border weights, B×H×W."""
        # Objects outside the window add weight inside it, so the map is made from the whole target.
        border = None if self.border is None else output.crop(self.border(target))
        return super().labels(output, target), border

    def wants(self, logits: Tensor) -> Wants:
        if not self.smoothing:
            return Wants(self.ignore_index)
        even = logits.new_ones(logits.shape[1], dtype=torch.float32)  # C
        rows = [even if self.weights is None else self.weights]
        if self.weights is not None and self.border is not None:
            rows.append(even)
        return Wants(self.ignore_index, spread=torch.stack(rows))

    def of_head(self, head: Head, labels: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        target, border = labels  # B×H×W
        weights = self.pixel_weights(target)  # B×H×W
        added = None if border is None else border * (target != self.ignore_index)
        weight = weights.sum() if added is None else weights.sum() + added.sum()
        if head.banded:
            return self._banded(head, weights, added), weight
        counted = self.without_zero_weights(target)
        total = softmax_loss(head, counted, self.ignore_index, self.weights, self.smoothing).sum()
        if added is None:
            return total, weight
        return total + (
            border * softmax_loss(head, target, self.ignore_index, smoothing=self.smoothing)
        ).sum(), weight

    def _banded(self, head: Head, weights: Tensor, added: Tensor | None) -> Tensor:
        """The total from class weights and border weights of each pixel, B×H×W."""
        of_true = weights if added is None else weights + added
        if not self.smoothing:
            return head.total(of_true)
        spread = (weights > 0).float()[None]  # 1×B×H×W, one for each vector of `wants`
        if added is not None:
            spread = spread + added if self.weights is None else torch.cat([spread, added[None]])
        share = self.smoothing / head.output.logits.shape[1]
        return head.total((1 - self.smoothing) * of_true, share * spread)


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
    border = (
        Border(border_weight, border_sigma, _object_classes(num_classes, facts))
        if border_weight > 0
        else None
    )
    weights = weights_of(class_weights, weight_power, num_classes, class_frequency)
    return CrossEntropy(weights, ignore_index, aux_weight, smoothing, border)


def _object_classes(num_classes: int, facts: Facts | None) -> tuple[int, ...]:
    """Indices of the classes whose connected components are objects."""
    if facts is not None and facts.things:
        return facts.things
    return foreground(num_classes, facts)
