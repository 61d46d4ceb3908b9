"""The mean of the probabilities over views of an image (test-time augmentation)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.predictor.tiles import AUTO_TILE_PIXELS, Predict
from segtrain.sample import View

IDENTITY = View(lambda images: images, lambda probabilities, size: (probabilities, 1.0))


@dataclass(frozen=True)
class Merge:
    """How the probabilities of the views of an image are merged.

    rule: probability: their arithmetic mean. logit: the mean of the logits, which is the geometric mean of
    the probabilities, renormalised. activation: softmax: over the classes of a pixel; sigmoid: each class has
    a probability of its own, and the geometric means are those of p and 1-p.
    batch: views of one size that go through the network together; None: one after the other on a CPU, else as
    many as have no more pixels than an image that is not tiled. The result is the same but for rounding.
    votes: append C channels to the result, one for each class: the share of the total weight of the views
    whose most probable class at the pixel is this class.
    """

    rule: Literal["probability", "logit"] = "probability"
    activation: Literal["softmax", "sigmoid"] = "softmax"
    batch: int | None = None
    votes: bool = False


def average(predict: Predict, views: Sequence[Sequence[View]], merge: Merge = Merge()) -> Predict:
    """The weighted mean ΣW·Q / ΣW of the probabilities Q of all combinations of views, one of each group.

    The plain image is added to every group, with weight 1, so no pixel is without a weight. `predict` may
    answer for the inner part of its images only.
    """
    combinations = list(itertools.product(*([IDENTITY, *group] for group in views)))
    if len(combinations) == 1 and not merge.votes:
        return predict

    def averaged(images: Tensor) -> Tensor:
        total, votes, weights = None, None, 0.0
        for part, weight in _weighted(predict, images, combinations, merge.batch):
            if total is None:
                total = torch.zeros_like(part)
                votes = torch.zeros_like(part) if merge.votes else None
            if merge.votes:
                votes.scatter_add_(
                    1, part.max(1, keepdim=True).indices, torch.ones_like(part[:, :1]) * weight
                )
            total += part if merge.rule == "probability" else _weighted_logits(part, weight, merge.activation)
            weights = weights + weight
        mean = total.div_(weights)
        if merge.rule == "logit":
            mean = mean.softmax(1) if merge.activation == "softmax" else mean.sigmoid()
        return torch.cat([mean, votes.div_(weights)], dim=1) if merge.votes else mean

    return averaged


def disagreement(decisions: Tensor, votes: Tensor) -> Tensor:
    """B×H×W float, 0..1: the share of the views' weight whose most probable class is not the decision.

    decisions: B×H×W class indices. votes: B×C×H×W, see `Merge`.
    """
    return 1 - votes.gather(1, decisions.long()[:, None])[:, 0].clamp_(0, 1)


def split_votes(predicted: Tensor) -> tuple[Tensor, Tensor]:
    """(probabilities, votes), both B×C×H×W, of what `average` gives with votes."""
    return tuple(predicted.chunk(2, dim=1))


def _weighted_logits(part: Tensor, weight: Tensor | float, activation: str) -> Tensor:
    """W·log Q of W·Q; with sigmoid W·log(Q / (1-Q)). 0 where W is 0."""
    least = torch.finfo(part.dtype).tiny
    probability = part / (weight.clamp_min(least) if isinstance(weight, Tensor) else weight)
    logit = probability.clamp_min(least).log_()
    if activation == "sigmoid":
        # Below half an eps, 1 - p is 0 in this dtype.
        logit -= (1 - probability).clamp_min(torch.finfo(part.dtype).eps / 2).log_()
    return logit.mul_(weight)


def _weighted(
    predict: Predict, images: Tensor, combinations: Sequence[Sequence[View]], batch: int | None
) -> Iterator[tuple[Tensor, Tensor | float]]:
    """W·Q and W of every combination of views, those of one size in batches."""
    waiting: dict[tuple[int, int], list[_Seen]] = {}
    for combination in combinations:
        seen = _seen(images, combination)
        size = tuple(seen.images.shape[-2:])
        group = waiting.setdefault(size, [])
        group.append(seen)
        if len(group) >= (batch or _automatic_batch(seen.images)):
            yield from _back(predict, waiting.pop(size))
    for group in waiting.values():
        yield from _back(predict, group)


def _automatic_batch(images: Tensor) -> int:
    if images.device.type == "cpu":  # where a batch takes no less time per image than single images
        return 1
    pixels = len(images) * images.shape[-2] * images.shape[-1]
    return max(1, AUTO_TILE_PIXELS // pixels)


@dataclass(frozen=True)
class _Seen:
    """A combination of views, the images that the network gets, and their sizes before each view."""

    combination: Sequence[View]
    images: Tensor
    sizes: Sequence[torch.Size]


def _seen(images: Tensor, combination: Sequence[View]) -> _Seen:
    sizes = []
    for view in combination:
        sizes.append(images.shape[-2:])
        images = view.forward(images)
    return _Seen(combination, images, sizes)


def _back(predict: Predict, group: Sequence[_Seen]) -> Iterator[tuple[Tensor, Tensor | float]]:
    """W·Q and W of combinations of views of one size, by one call of `predict`."""
    together = torch.cat([seen.images for seen in group]) if len(group) > 1 else group[0].images
    parts = predict(together).chunk(len(group))
    for seen, part in zip(group, parts, strict=True):
        yield _mapped_back(part, seen)


def _mapped_back(part: Tensor, seen: _Seen) -> tuple[Tensor, Tensor | float]:
    weight: Tensor | float = 1.0
    size = seen.images.shape[-2:]
    lost = [side - inner for side, inner in zip(size, part.shape[-2:], strict=True)]
    if any(lost) and any(other != size for other in seen.sizes):
        raise ConfigError(
            "a view of tta has another size than the image, and this network answers for the inner part of "
            "its tiles; use predictor.tile=null"
        )
    for view, before in zip(reversed(seen.combination), reversed(seen.sizes), strict=True):
        to = tuple(side - less for side, less in zip(before, lost, strict=True))
        part, own = view.backward(part, to)
        if isinstance(weight, Tensor):
            # As W·Q, so that what is interpolated from weight 0 does not count.
            weight = view.backward(weight, to)[0]
        if isinstance(own, Tensor) or own != 1:
            part, weight = part * own, weight * own
    return part, weight
