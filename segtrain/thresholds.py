"""Thresholds of labels: a label holds where its probability is at or above its threshold. Thresholds lie on a
grid, so that histograms of the probabilities are enough to fit them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BINS = 256
"""Bins of the histograms of probabilities. Thresholds are 1/256 … 255/256, where the bins meet. A power of
two: multiplying a probability by it is exact, so that the bins above a threshold hold the very pixels that a
comparison with it finds."""
CHUNK = 1 << 16
"""Pixels per chunk, so that their bins stay in the processor's cache."""
HALF = 0.5
"""The threshold of a label until one is fitted."""


def on_grid(threshold: float) -> float:
    """The nearest threshold of the grid."""
    return min(max(round(threshold * BINS), 1), BINS - 1) / BINS


def holds(probabilities: Tensor, thresholds: Sequence[float]) -> Tensor:
    """uint8, 1 where a label holds: its probability is at or above its threshold. B×T×H×W."""
    limits = torch.tensor(thresholds, dtype=probabilities.dtype, device=probabilities.device)
    return (probabilities >= limits.view(1, -1, 1, 1)).to(torch.uint8)


def histograms(probabilities: Tensor, target: Tensor) -> Tensor:
    """2×BINS int64: number of the pixels without (first row) and with the label, by its probability.

    probabilities: float32. target: of the same shape; 1: with the label, 0: without, larger values are not
    counted.
    """
    values, truth = probabilities.reshape(-1), target.reshape(-1)
    counts = torch.zeros(3 * BINS, dtype=torch.int64, device=values.device)  # with a spare last row
    chunk = CHUNK if values.device.type == "cpu" else values.numel()
    for start in range(0, values.numel(), max(chunk, 1)):
        place = (values[start : start + chunk] * BINS).to(torch.int32).clamp_(0, BINS - 1)
        row = truth[start : start + chunk].to(torch.int32).clamp_(max=2)
        counts += torch.bincount(torch.add(place, row, alpha=BINS), minlength=3 * BINS)
    return counts[: 2 * BINS].view(2, BINS)


def counts_at(histogram: Tensor, thresholds: Tensor | Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """(TP, FP, FN), T int64 each, of the T×2×BINS histograms of T labels at their thresholds of the grid."""
    place = (torch.as_tensor(thresholds, dtype=torch.float64) * BINS).round().long()  # T
    rest = _at_or_above(histogram).gather(2, place.view(-1, 1, 1).expand(-1, 2, 1))[..., 0]  # T×2
    return rest[:, 1], rest[:, 0], histogram[:, 1].sum(1) - rest[:, 1]


def fitted(histogram: Tensor) -> tuple[float, ...]:
    """The threshold of each label that maximises its IoU, of T×2×BINS histograms; of equally good ones, that
    nearest to 0.5, the lower one first. 0.5 for a label that no pixel has."""
    rest = _at_or_above(histogram.cpu()).double()  # T×2×BINS
    hit, wrong = rest[:, 1, 1:], rest[:, 0, 1:]  # T×(BINS - 1), at 1/BINS …
    labelled = histogram.cpu()[:, 1].sum(1, keepdim=True).double()
    iou = hit / (labelled + wrong).clamp_min(1)
    best = iou == iou.amax(1, keepdim=True)
    away = torch.arange(1, BINS) - BINS // 2  # BINS - 1
    distance = away.abs() + 0.5 * (away > 0)
    place = torch.where(best, distance, torch.inf).argmin(1) + 1
    place = torch.where(labelled[:, 0] > 0, place, BINS // 2)
    return tuple((place / BINS).tolist())


def _at_or_above(histogram: Tensor) -> Tensor:
    """Number of pixels in each bin and all bins above it, from T×2×BINS histograms."""
    return histogram.flip(-1).cumsum(-1).flip(-1)
