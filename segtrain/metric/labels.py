"""Scores of labels that hold from a probability on: IoU, Dice, precision and recall of each label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.metric.confusion import by_class, mean_of, resampled_iou
from segtrain.sample import CLASSES, Number, PerClass, ScoreDict, Target
from segtrain.thresholds import BINS, counts_at, fitted, histograms


class Labels:
    """Histograms of the probabilities per image, and the scores that follow from their sum at the thresholds.
    thresholds: of the T labels; None: those that fit the scored images best."""

    needs = frozenset({"probabilities"})

    def __init__(self, thresholds: Sequence[float] | None, absent: str = "union"):
        self.thresholds, self.absent = thresholds, absent

    def counts(self, target: Tensor, *, probabilities: Tensor) -> Tensor:
        """B×T×2×BINS int64: of each image and label, the number of pixels without and with it, by its
        probability.

        target: B×H×W or B×T×H×W of 0, 1 and the ignore index. probabilities: B×T×H×W.
        """
        target = target[:, None] if target.ndim == 3 else target
        of_all = zip(probabilities.flatten(0, 1), target.flatten(0, 1), strict=True)  # B·T
        counts = torch.stack([histograms(*pair) for pair in of_all])
        return counts.view(*probabilities.shape[:2], 2, BINS)

    def scores(self, counts: Tensor) -> ScoreDict:
        """By label: `iou`, `dice`, `precision`, `recall` in 0..1 and `threshold`; and the means `miou`,
        `mean_dice`. The value is None for a label that the means leave out.

        counts: T×2×BINS, summed over images. IoU = TP / (TP + FP + FN), Dice = 2 TP / (2 TP + FP + FN),
        precision = TP / (TP + FP), recall = TP / (TP + FN), over all pixels of the set. absent: see
        `segtrain.settings.EvaluateSettings`.
        """
        values = self._by_label(counts)
        return {
            "iou": PerClass("IoU", values["iou"], mean="miou"),
            "dice": PerClass("Dice", values["dice"], mean="mean_dice"),
            "precision": PerClass("precision", values["precision"]),
            "recall": PerClass("recall", values["recall"]),
            "threshold": PerClass("threshold", values["threshold"]),
            "miou": Number("mIoU", mean_of(values["iou"])),
            "mean_dice": Number("mean Dice", mean_of(values["dice"])),
        }

    def parts(self, counts: Tensor) -> Tensor:
        """N×3T float64: of each image, by label, the pixels that are right, labelled and predicted at the
        thresholds. counts: N×T×2×BINS, sparse."""
        by_image = counts.to_dense().cpu()  # N×T×2×BINS
        thresholds = self._thresholds_for(by_image.sum(0))
        of_images = [torch.stack(counts_at(histogram, thresholds)) for histogram in by_image]
        hit, wrong, missed = torch.stack(of_images).double().unbind(1)  # N×T each
        return torch.stack([hit, hit + missed, hit + wrong], dim=1).flatten(1)

    def resampled(self, parts: np.ndarray) -> dict[str, np.ndarray]:
        """`miou` (R) and `iou` (R×T) of sums of `parts`, R×3T float64; NaN for None."""
        return resampled_iou(*parts.reshape(len(parts), 3, -1).transpose(1, 0, 2), self.absent)

    def _thresholds_for(self, histogram: Tensor) -> tuple[float, ...]:
        """The thresholds, one a label: the fixed ones, or those fitted to the histogram, T×2×BINS and summed
        over images."""
        thresholds = fitted(histogram) if self.thresholds is None else tuple(self.thresholds)
        return thresholds * len(histogram) if len(thresholds) == 1 else thresholds  # one for all labels

    def _by_label(self, counts: Tensor) -> dict[str, tuple[float | None, ...]]:
        histogram = counts.cpu()
        thresholds = self._thresholds_for(histogram)
        hit, wrong, missed = (one.double() for one in counts_at(histogram, thresholds))  # T each
        is_absent = hit + missed == 0 if self.absent == "gt" else hit + missed + wrong == 0
        parts = {
            "iou": (hit, hit + wrong + missed),
            "dice": (2 * hit, 2 * hit + wrong + missed),
            "precision": (hit, hit + wrong),
            "recall": (hit, hit + missed),
        }
        found = {key: tuple(by_class(*pair, is_absent, self.absent)) for key, pair in parts.items()}
        return {**found, "threshold": thresholds}


class Foreground(Labels):
    """The scores of one label, the foreground, each of them a number."""

    def scores(self, counts: Tensor) -> ScoreDict:
        """`foreground_iou`, `foreground_dice`, `precision`, `recall` and `threshold` of the foreground, see
        `Labels.scores`. counts: 1×2×BINS, summed over images."""
        values = {key: value for key, (value,) in self._by_label(counts).items()}
        return {
            "foreground_iou": Number("foreground IoU", values["iou"]),
            "foreground_dice": Number("Dice", values["dice"]),
            "precision": Number("precision", values["precision"]),
            "recall": Number("recall", values["recall"]),
            "threshold": Number("threshold", values["threshold"]),
        }

    def resampled(self, parts: np.ndarray) -> dict[str, np.ndarray]:
        """`foreground_iou` (R) of sums of `parts`, R×3 float64; NaN for None."""
        return {"foreground_iou": super().resampled(parts)["iou"][:, 0]}


def foreground(
    thresholds: Sequence[float] | None = None, absent: str = "union", target: Target = CLASSES
) -> Foreground:
    """IoU, Dice, precision and recall of the foreground (task=binary), at the threshold of the run; in
    training at the one that fits the validation split best."""
    if not (target.labels and target.classes):
        raise ConfigError(
            "metric.foreground scores the probabilities of task=binary; for other tasks and for masks use "
            "metric.confusion"
        )
    return Foreground(thresholds, absent)


def labels(
    thresholds: Sequence[float] | None = None, absent: str = "union", target: Target = CLASSES
) -> Labels:
    """IoU, Dice, precision and recall of each label and their means (task=multilabel), at the thresholds of
    the run; in training at those that fit the validation split best."""
    if not target.multilabel:
        raise ConfigError(
            "metric.labels scores the probabilities of task=multilabel; for classes use metric.confusion"
        )
    return Labels(thresholds, absent)
