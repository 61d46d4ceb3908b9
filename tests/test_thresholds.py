"""Thresholds of labels: the grid, the fit, and that counting bins is the same as comparing probabilities."""

import pytest
import torch
from torchmetrics.classification import BinaryJaccardIndex

from segtrain.thresholds import BINS, counts_at, fitted, histograms, holds, on_grid


def example(seed: int, share: float = 0.3, ignored: float = 0.1):
    """5000 probabilities, among them every threshold of the grid, and their targets 0, 1 and 255."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(5000, generator=generator)
    probabilities[: BINS - 1] = torch.arange(1, BINS) / BINS
    probabilities[BINS : BINS + 2] = torch.tensor([0.0, 1.0])
    noisy = probabilities + 0.3 * torch.randn(5000, generator=generator)
    target = (noisy > 1 - share).to(torch.uint8)
    target[torch.rand(5000, generator=generator) < ignored] = 255
    return probabilities, target


@pytest.mark.parametrize("seed", range(3))
def test_bins_hold_what_a_comparison_finds(seed):
    probabilities, target = example(seed)
    histogram = histograms(probabilities, target)
    assert histogram.sum() == (target != 255).sum()
    for place in (1, 2, 100, 128, 255):
        threshold = place / BINS
        decided = holds(probabilities.view(1, 1, 1, -1), [threshold]).flatten()
        known = target != 255
        expected = [
            int((decided[known] == answer).logical_and(target[known] == truth).sum())
            for answer, truth in ((1, 1), (1, 0), (0, 1))
        ]
        assert [int(one) for one in counts_at(histogram[None], [threshold])] == expected


@pytest.mark.parametrize("seed", range(3))
def test_the_fitted_threshold_is_the_best_of_all(seed):
    probabilities, target = example(seed)
    known = target != 255
    scores = [
        float(BinaryJaccardIndex(k / BINS - 1e-7)(probabilities[known], target[known].long()))
        for k in range(1, BINS)
    ]
    (found,) = fitted(histograms(probabilities, target)[None])
    assert scores[round(found * BINS) - 1] == max(scores) > scores[BINS // 2 - 1]


def test_of_equal_thresholds_the_one_nearest_to_a_half():
    def fit(low, high):
        return fitted(histograms(torch.tensor([low, high]), torch.tensor([0, 1]))[None])

    assert fit(0.1, 0.9) == (0.5,)
    assert fit(0.1, 0.3) == (76 / 256,)  # 77/256 is above 0.3
    assert fit(0.8, 0.9) == (205 / 256,)  # 204/256 is below 0.8
    label, none = histograms(torch.tensor([0.1, 0.3]), torch.tensor([0, 1])), torch.zeros(2, BINS).long()
    assert fitted(torch.stack([none, label])) == (0.5, 76 / 256)
    absent = histograms(torch.tensor([0.1, 0.3]), torch.tensor([0, 255]))
    assert fitted(absent[None]) == (0.5,)


def test_the_grid():
    assert [on_grid(one) for one in (1e-9, 0.5, 0.3, 1 - 1e-9)] == [1 / 256, 0.5, 77 / 256, 255 / 256]
    assert holds(torch.tensor([0.5, 0.499]).view(1, 1, 1, 2), [0.5]).flatten().tolist() == [1, 0]
    both = torch.full((1, 2, 1, 1), 0.4)
    assert holds(both, [0.5, 0.25]).flatten().tolist() == [0, 1]
