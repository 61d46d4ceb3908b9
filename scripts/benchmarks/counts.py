"""Counting the confusion matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.paired import Goal, Left, Result, alternating, faster, threads, version
from segtrain.metric.confusion import Confusion
from segtrain.sample import IGNORE

NUM_CLASSES = 19


def label_maps(quick: bool) -> tuple[Tensor, Tensor]:
    """(prediction, target), 8×512×1024 int64: squares of 32 px of one class, a tenth wrong, another tenth of
    the target ignored."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, NUM_CLASSES, (1 if quick else 8, 16, 32), generator=generator)
    target = coarse.repeat_interleave(32, 1).repeat_interleave(32, 2)
    wrong = torch.rand(target.shape, generator=generator) < 0.1
    prediction = torch.where(wrong, torch.randint(0, NUM_CLASSES, target.shape, generator=generator), target)
    target[torch.rand(target.shape, generator=generator) < 0.1] = IGNORE
    return prediction, target


def torchmetrics_update(quick: bool) -> Result:
    """19 classes, int64, 10 % ignored, one thread each, against `update` of the metric with its defaults;
    equal counts are checked."""
    peer = version("torchmetrics")
    from torchmetrics.classification import MulticlassConfusionMatrix

    metric = MulticlassConfusionMatrix(NUM_CLASSES, ignore_index=IGNORE)

    def theirs(prediction: Tensor, target: Tensor) -> Tensor:
        metric.update(prediction, target)
        return metric.confmat

    return _compared(
        f"{peer} MulticlassConfusionMatrix", theirs, metric.reset, faster(25), 5 if quick else 15, quick
    )


def masked_update(quick: bool) -> Result:
    """The same against the usual form by hand: select the valid pixels by a mask, then count n·t + p."""

    def theirs(prediction: Tensor, target: Tensor) -> Tensor:
        valid = (target >= 0) & (target < NUM_CLASSES)
        pairs = NUM_CLASSES * target[valid].to(torch.int64) + prediction[valid]
        return torch.bincount(pairs, minlength=NUM_CLASSES**2).view(NUM_CLASSES, NUM_CLASSES)

    return _compared(
        f"mask, then bincount ({version('torch')})",
        theirs,
        lambda: None,
        faster(12),
        5 if quick else 21,
        quick,
    )


def _compared(peer: str, theirs: Callable, reset: Callable, goal: Goal, pairs: int, quick: bool) -> Result:
    confusion = Confusion(NUM_CLASSES, IGNORE)
    prediction, target = label_maps(quick)
    with threads(1):
        if not torch.equal(confusion.counts(target, decisions=prediction).sum(0), theirs(prediction, target)):
            raise Left(f"{peer} counts differently")
        reset()
        ours_s, theirs_s = alternating(
            lambda: confusion.counts(target, decisions=prediction).sum(0),
            lambda: theirs(prediction, target),
            pairs,
        )
    return Result(peer, ours_s, theirs_s, goal)
