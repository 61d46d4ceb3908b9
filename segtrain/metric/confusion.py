"""Scores from the confusion matrix: pixel accuracy, IoU, Dice."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segtrain.errors import ConfigError

BAND = 1 << 16
"""Pixels that are counted at a time: small enough for their indices to stay in the processor's cache."""


class Confusion:
    """Counts that add over images and processes, and the scores that follow from them."""

    def __init__(self, num_classes: int, ignore_index: int):
        if 0 <= ignore_index < num_classes:
            raise ConfigError(
                f"ignore index {ignore_index} is one of the {num_classes} classes; allowed: {num_classes} "
                f"or more, or negative"
            )
        self.num_classes, self.ignore_index = num_classes, ignore_index

    def counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """C×C int64: pixels of each true class (row) by predicted class (column), without those that the
        target ignores.

        Both are integer tensors of one shape; the target holds 0..C-1 and the ignore index, which the reader
        has checked.
        """
        c = self.num_classes
        counts = torch.zeros(c * (c + 1), dtype=torch.int64, device=target.device)
        truth, answer = target.reshape(-1), prediction.reshape(-1)
        band = BAND if truth.device.type == "cpu" else truth.numel()
        for start in range(0, truth.numel(), max(band, 1)):
            # Ignored pixels go to a spare last row: selecting by a mask costs twenty times as much as
            # counting them. All in int32: int64 and int32 in one addition are not vectorised and make
            # counting a third slower.
            row, column = (
                truth[start : start + band].to(torch.int32),
                answer[start : start + band].to(torch.int32),
            )
            row = (
                row.clamp(max=c) if self.ignore_index >= c else torch.where(row == self.ignore_index, c, row)
            )
            index = torch.add(column, row, alpha=c)
            counts += torch.bincount(index, minlength=c * (c + 1))
        return counts[: c * c].view(c, c)

    def scores(self, counts: Tensor, absent: str = "union") -> dict:
        """`pixel_accuracy`, `mean_accuracy`, `miou`, `mean_dice`, `fw_iou` in 0..1, and lists by class:
        `iou`, `dice`, `accuracy`. None stands for a class that the means leave out, and for a mean of none.

        IoU = TP / (TP + FP + FN), Dice = 2 TP / (2 TP + FP + FN), accuracy = TP / (TP + FN), over all pixels
        of the set. The accuracy of a class that is predicted and not labelled is 0 / 0: `absent` = union and
        gt leave it out; zero and one, which leave out none, count it as 0.

        counts: C×C, as `counts` gives them. absent: which classes the means leave out, see
        `segtrain.settings.EvaluateSettings`.
        """
        matrix = counts.double().cpu()
        hit, truth, answer = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        labelled = truth.sum().item()
        is_absent = truth == 0 if absent == "gt" else truth + answer == 0
        iou = _by_class(hit, truth + answer - hit, is_absent, absent)
        dice = _by_class(2 * hit, truth + answer, is_absent, absent)
        accuracy = _by_class(hit, truth, is_absent, absent)
        return {
            "pixel_accuracy": hit.sum().item() / labelled if labelled else None,
            "mean_accuracy": _mean(accuracy),
            "miou": _mean(iou),
            "mean_dice": _mean(dice),
            "fw_iou": sum(t / labelled * (v or 0.0) for t, v in zip(truth.tolist(), iou, strict=True))
            if labelled
            else None,
            "present": int(((truth + answer) > 0).sum()),
            "iou": iou,
            "dice": dice,
            "accuracy": accuracy,
        }


def _by_class(part: Tensor, whole: Tensor, is_absent: Tensor, absent: str) -> list[float | None]:
    """part / whole of each class (all of length C), and what the rule `absent` puts for absent classes and
    for 0 / 0."""
    of_absent = {"union": None, "gt": None, "zero": 0.0, "one": 1.0}[absent]
    of_nothing = None if of_absent is None else 0.0
    return [
        of_absent if missing else p / w if w else of_nothing
        for p, w, missing in zip(part.tolist(), whole.tolist(), is_absent.tolist(), strict=True)
    ]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def confusion(num_classes: int, ignore_index: int) -> Confusion:
    """Pixel accuracy, mean accuracy, IoU and Dice from one confusion matrix over the whole set."""
    return Confusion(num_classes, ignore_index)
