"""Calibration: whether a network is right as often as its probabilities say."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.options import between
from segtrain.sample import CLASSES, Curve, Number, ScoreDict, Target


class Calibration:
    """The expected calibration error (Naeini et al. 2015; Guo et al. 2017, "On calibration of modern neural
    networks", eq. 3) over all labelled pixels, and the reliability curve.

    The confidence of a pixel is its highest probability, and the bins of confidences are equally wide.
    """

    needs = frozenset({"probabilities"})

    def __init__(self, ignore_index: int, num_bins: int):
        self.ignore_index, self.num_bins = ignore_index, num_bins

    def counts(self, target: Tensor, *, probabilities: Tensor) -> Tensor:
        """B×N×3 float64, one row per image: of each bin the number of pixels, the sum of their confidences
        and how many of them are right. target: B×H×W integers. probabilities: B×C×H×W."""
        return torch.stack([self._of_image(*pair) for pair in zip(target, probabilities, strict=True)])

    def _of_image(self, target: Tensor, probabilities: Tensor) -> Tensor:
        confidence, decisions = probabilities.max(0)  # H×W
        labelled = target != self.ignore_index
        confidence, right = confidence[labelled], (decisions == target)[labelled]
        # Bin b holds b/N < confidence <= (b + 1)/N.
        place = (confidence * self.num_bins).ceil().long().sub(1).clamp(0, self.num_bins - 1).cpu()
        weights = (None, confidence.cpu().double(), right.cpu().double())
        found = [torch.bincount(place, one, minlength=self.num_bins).double() for one in weights]
        return torch.stack(found, dim=1)  # N×3

    def scores(self, counts: Tensor) -> ScoreDict:
        """`ece` and `confidence`, the mean one, in 0..1; `calibration`: the accuracy of each bin over its
        centre, None for an empty bin. counts: N×3, summed over images. ECE = Σ pixels in bin / all pixels ·
        |accuracy - mean confidence|."""
        pixels, confidence, right = counts.double().cpu().unbind(1)
        total = pixels.sum().item()
        error = (right - confidence).abs().sum().item() / total if total else None
        centres = tuple((b + 0.5) / self.num_bins for b in range(self.num_bins))
        accuracy = tuple(r / n if n else None for r, n in zip(right.tolist(), pixels.tolist(), strict=True))
        return {
            "ece": Number("expected calibration error", error),
            "confidence": Number("mean confidence", confidence.sum().item() / total if total else None),
            "calibration": Curve("accuracy", "confidence", centres, accuracy),
        }


def calibration(
    ignore_index: int, num_bins: Annotated[int, between(1, 1000)] = 15, target: Target = CLASSES
) -> Calibration:
    """Expected calibration error, and accuracy as a curve over confidence. It takes the probabilities of a
    whole image into memory: 4 bytes a pixel and class.

    Options:
        num_bins: equally wide bins of confidence
    """
    if target.labels or not target.classes:
        raise ConfigError(
            "metric.calibration scores the probability of the most probable class, and the task has none; "
            "leave it out"
        )
    return Calibration(ignore_index, num_bins)
