"""From probabilities to class indices."""

from __future__ import annotations

import torch
from torch import Tensor


def most_probable(probabilities: Tensor) -> Tensor:
    """B×H×W int64: the index of the largest of B×C×H×W values, the first of equal ones. Where a value is
    NaN, any index."""
    classes = probabilities.shape[1]
    if probabilities.device.type != "cpu" or classes > 255:
        return probabilities.max(1).indices
    # On a CPU, argmax goes pixel by pixel. The maximum and comparisons with it go over whole vectors, in a
    # seventh of the time.
    largest = probabilities.amax(1)  # B×H×W
    rank = torch.ones(largest.shape, dtype=torch.uint8)  # C for the first class, 1 for the last
    for index in range(classes):
        is_largest = (probabilities[:, index] == largest).view(torch.uint8)
        torch.maximum(rank, is_largest.mul_(classes - index), out=rank)
    return classes - rank.long()
