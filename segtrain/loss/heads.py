"""Losses of the main head and of auxiliary heads."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.loss.banded import Terms, pays, softmax_terms, softmax_total
from segtrain.sample import Facts, Output, Target


class Wants(NamedTuple):
    """What a loss needs of the softmax of upsampled logits besides -log p of the class of each pixel:
    `spread` and `powers` of `segtrain.loss.banded.softmax_terms`."""

    ignore_index: int
    spread: Tensor | None = None
    powers: tuple[int, ...] = ()


class Head:
    """One head of a network, for the losses that are computed on it.

    output: its logits are those of the head. target: B×H×W, the part that the logits cover. step: number of
    optimizer steps before this one. banded: whether `terms` and `total` are available; they never hold the
    upsampled logits, so it is true only if no loss needs these and if it pays.
    """

    def __init__(self, output: Output, target: Tensor, losses: Sequence[HeadLoss]):
        self.output, self.target, self.step = output, target, output.step
        self._shared = len(losses) > 1
        self._wants = _union([loss.wants(output.logits) for loss in losses])
        self.banded = self._wants is not None and pays(output.logits, output.size)

    def upsampled(self) -> Tensor:
        """B×C×H×W float32 logits at full size, made once for all losses."""
        # Kept for a single loss they would take memory for nothing.
        return self._kept if self._shared else self.output.upsampled()

    @functools.cached_property
    def _kept(self) -> Tensor:
        return self.output.upsampled()

    @functools.cached_property
    def terms(self) -> Terms:
        """What the losses want, made once for all of them."""
        return softmax_terms(*self._problem(), spread=self._wants.spread, powers=self._wants.powers)

    def total(self, nll_weights: Tensor, spread_weights: Tensor | None = None) -> Tensor:
        """Σ nll_weights · terms.nll + Σ spread_weights · terms.spread, a scalar; the weights have no
        gradient."""
        if not self._shared:
            return softmax_total(*self._problem(), nll_weights, self._wants.spread, spread_weights)
        total = (nll_weights * self.terms.nll).sum()
        return total if spread_weights is None else total + (spread_weights * self.terms.spread).sum()

    def _problem(self) -> tuple:
        output = self.output
        # As `upsampled` does. Lower precisions are converted block by block.
        logits = output.logits.float() if output.logits.dtype == torch.float64 else output.logits
        return logits, output.size, output.align_corners, self.target, self._wants.ignore_index


def _union(wants: list[Wants | None]) -> Wants | None:
    """What several losses need together; None if the terms cannot give it."""
    first = wants[0]
    if any(one is None or one.ignore_index != first.ignore_index for one in wants):
        return None
    spreads = [one.spread for one in wants if one.spread is not None]
    if len(spreads) > 1:
        return None
    powers = {power for one in wants for power in one.powers}
    return Wants(first.ignore_index, spreads[0] if spreads else None, tuple(sorted(powers)))


class HeadLoss(nn.Module):
    """Base class of the losses that are computed on each head of a network: the loss of the main head, plus
    aux_weight times that of each auxiliary head, over the weight of the main head.

    A loss defines `of_head`, `labels` where it needs more than the target, and `wants` where it can do
    without the upsampled logits.
    """

    def __init__(self, aux_weight: float):
        super().__init__()
        self.aux_weight = aux_weight

    def forward(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor]:
        return of_heads([self], output, target)[0]

    def labels(self, output: Output, target: Tensor):
        """What `of_head` gets, made once for all heads: int64 B×H×W, the part of the target that the logits
        cover."""
        return output.crop(target).long()

    def wants(self, logits: Tensor) -> Wants | None:
        """What the loss needs of B×C×h×w `logits`, so that `of_head` may get a banded head; None if it needs
        the upsampled logits."""
        return None

    def of_head(self, head: Head, labels) -> tuple[Tensor, Tensor]:
        """(total, weight) of one head, float32 scalars."""
        raise NotImplementedError


def of_heads(losses: Sequence[HeadLoss], output: Output, target: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(total, weight) of each loss. The losses share what they need of a head."""
    if not losses:
        return []
    labels = [loss.labels(output, target) for loss in losses]
    parts = []
    for logits in (output.logits, *output.aux):
        head = Head(output._replace(logits=logits), output.crop(target), losses)
        found = [loss.of_head(head, own) for loss, own in zip(losses, labels, strict=True)]
        parts = (
            [
                (total + loss.aux_weight * of_aux, weight)
                for loss, (total, weight), (of_aux, _) in zip(losses, parts, found, strict=True)
            ]
            if parts
            else found
        )
    return parts


def probabilities_of(logits: Tensor, activation: str) -> Tensor:
    """B×C×H×W probabilities by the activation of the task, softmax or sigmoid."""
    return logits.softmax(1) if activation == "softmax" else logits.sigmoid()


def label_targets(output: Output, target: Tensor) -> Tensor:
    """uint8 B×T×H×W: the part of a target of T labels (B×H×W: of one) that the logits cover."""
    target = output.crop(target)
    return target[:, None] if target.ndim == 3 else target


def check_classes(name: str, target: Target) -> None:
    """ConfigError if the task has no classes, or classes that do not exclude each other."""
    if target.labels:
        raise ConfigError(
            f"loss={name} compares classes that exclude each other, and the task has a sigmoid for each "
            f"label; use loss=binary_cross_entropy, dice, focal_sigmoid, jaccard or tversky"
        )
    if not target.classes:
        raise ConfigError(f"loss={name} compares classes, and the task has none; choose another loss")


def foreground(num_classes: int, facts: Facts | None) -> tuple[int, ...]:
    """Indices of all classes but the background (`Facts.background`)."""
    background = None if facts is None else facts.background
    return tuple(index for index in range(num_classes) if index != background)


def check_activation(name: str, needed: str, activation: str) -> None:
    """ConfigError if the loss takes the logits for those of another activation than the task does."""
    if needed != activation:
        raise ConfigError(
            f"loss={name} trains logits of a {needed}, and the task decides by a {activation} "
            f"(task.activation); choose task.activation={needed} or a loss for a {activation}"
        )
