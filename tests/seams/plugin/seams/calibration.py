"""A metric of bins over the probabilities."""

import torch

from segtrain.sample import Curve, Number


class Calibration:
    """Confidence against accuracy in equal bins (Guo et al. 2017, "On calibration of modern neural networks", eq. 3)."""

    needs = frozenset({"probabilities"})

    def __init__(self, bins: int, ignore_index: int):
        self.bins, self.ignore_index = bins, ignore_index

    def counts(self, target, *, probabilities):
        return torch.stack([self._of_image(*pair) for pair in zip(target, probabilities, strict=True)])

    def _of_image(self, target, probabilities):
        confidence, answer = probabilities.max(0)
        known = target != self.ignore_index
        confidence, right = confidence[known].double(), (answer == target)[known].double()
        place = (confidence * self.bins).long().clamp(max=self.bins - 1)
        rows = torch.stack([torch.ones_like(right), confidence, right])
        return torch.zeros(3, self.bins, dtype=torch.float64).index_add(1, place, rows)  # 3×bins

    def scores(self, counts):
        pixels, confidence, right = counts
        error = ((confidence - right).abs().sum() / pixels.sum()).item()
        accuracy = tuple(r / p if p else None for r, p in zip(right.tolist(), pixels.tolist(), strict=True))
        centres = tuple((i + 0.5) / self.bins for i in range(self.bins))
        return {
            "calibration_error": Number("calibration error", error),
            "calibration": Curve("accuracy", "confidence", centres, accuracy),
        }


def calibration(ignore_index: int, bins: int = 5) -> Calibration:
    """Expected calibration error and its curve.

    Options:
        bins: how many
    """
    return Calibration(bins, ignore_index)
