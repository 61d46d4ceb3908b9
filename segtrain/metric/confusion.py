"""Scores from the confusion matrix: pixel accuracy, IoU, Dice."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.sample import CLASSES, Facts, Number, PerClass, ScoreDict, Target

CHUNK = 1 << 16
"""Pixels per chunk, so that their indices stay in the processor's cache."""


class Confusion:
    """Confusion matrices per image, and the scores that follow from their sum."""

    needs = frozenset({"decisions"})

    def __init__(
        self,
        num_classes: int,
        ignore_index: int,
        absent: str = "union",
        num_answers: int | None = None,
        background: int | None = None,
    ):
        """num_answers: A, decisions are 0..A-1; None: C. Decisions from C on are no class: such a pixel is
        missed by its true class and counts against no other. background: index of the class that is no
        foreground; None: no score of the foreground."""
        if num_classes < 1:
            raise ConfigError(
                "metric: confusion and boundary score classes, and the data has none; choose another"
            )
        if 0 <= ignore_index < num_classes:
            raise ConfigError(
                f"ignore index {ignore_index} is one of the {num_classes} classes; allowed: {num_classes} or "
                f"more, or negative"
            )
        self.num_classes, self.ignore_index, self.absent = num_classes, ignore_index, absent
        self.background = background
        self.num_answers = num_classes if num_answers is None else num_answers

    def counts(self, target: Tensor, *, decisions: Tensor) -> Tensor:
        """B×C×A int64 confusion matrices, one per image: pixels of each true class (row) by predicted class
        (column), without ignored pixels.

        target, decisions: B×… integers of one shape. The target holds 0..C-1 and the ignore index, which the
        reader has checked.
        """
        return torch.stack([self.matrix(*pair) for pair in zip(target, decisions, strict=True)])  # B×C×A

    def matrix(self, target: Tensor, decisions: Tensor) -> Tensor:
        """C×A int64: the confusion matrix over all pixels of `target` and `decisions`, which have the same
        shape."""
        c, answers = self.num_classes, self.num_answers
        counts = torch.zeros((c + 1) * answers, dtype=torch.int64, device=target.device)
        truth, answer = target.reshape(-1), decisions.reshape(-1)
        chunk = CHUNK if truth.device.type == "cpu" else truth.numel()
        for start in range(0, truth.numel(), max(chunk, 1)):
            # Ignored pixels go to a spare last row: selecting by a mask costs twenty times as much as
            # counting them. All in int32: int64 and int32 in one addition are not vectorised and make
            # counting a third slower.
            row = truth[start : start + chunk].to(torch.int32)
            column = answer[start : start + chunk].to(torch.int32)
            row = (
                row.clamp(max=c) if self.ignore_index >= c else torch.where(row == self.ignore_index, c, row)
            )
            index = torch.add(column, row, alpha=answers)
            counts += torch.bincount(index, minlength=(c + 1) * answers)
        return counts[: c * answers].view(c, answers)

    def scores(self, counts: Tensor) -> ScoreDict:
        """`pixel_accuracy`, `mean_accuracy`, `miou`, `mean_dice`, `fw_iou` in 0..1, `kappa` in -1..1, and by
        class: `iou`, `dice`, `accuracy`. The value is None for a class that the means leave out, and for a
        mean over no class. With a background, `foreground_iou` and `foreground_dice`: those of all other
        classes taken as one.

        counts: C×A, summed over images. IoU = TP / (TP + FP + FN), Dice = 2 TP / (2 TP + FP + FN), accuracy =
        TP / (TP + FN), over all pixels of the set. The accuracy of a class that is predicted but not labelled
        is 0 / 0: with `absent` = union or gt the means leave this accuracy out, with zero or one it is 0.
        absent: see `segtrain.settings.EvaluateSettings`. Kappa (Cohen 1960) is (p - q) / (1 - q) with the
        pixel accuracy p and the accuracy q by chance, Σ labelled · predicted / pixels²; None if q is 1.
        """
        matrix = counts.double().cpu()
        hit, truth, answer = matrix.diagonal(), matrix.sum(1), matrix.sum(0)[: self.num_classes]
        labelled = truth.sum().item()
        is_absent = truth == 0 if self.absent == "gt" else truth + answer == 0
        iou = by_class(hit, truth + answer - hit, is_absent, self.absent)
        dice = by_class(2 * hit, truth + answer, is_absent, self.absent)
        accuracy = by_class(hit, truth, is_absent, self.absent)
        weighted = sum(t * (v or 0.0) for t, v in zip(truth.tolist(), iou, strict=True))
        return {
            "iou": PerClass("IoU", tuple(iou), mean="miou"),
            "dice": PerClass("Dice", tuple(dice), mean="mean_dice"),
            "accuracy": PerClass("accuracy", tuple(accuracy), mean="mean_accuracy"),
            "miou": Number("mIoU", mean_of(iou)),
            "mean_dice": Number("mean Dice", mean_of(dice)),
            "mean_accuracy": Number("mean accuracy", mean_of(accuracy)),
            "pixel_accuracy": Number("pixel accuracy", hit.sum().item() / labelled if labelled else None),
            "fw_iou": Number("frequency-weighted IoU", weighted / labelled if labelled else None),
            "kappa": Number("kappa", _kappa(hit, truth, answer)),
            **({} if self.background is None else self._foreground(matrix)),
            "present": Number("classes present", int(((truth + answer) > 0).sum())),
        }

    def _foreground(self, matrix: Tensor) -> ScoreDict:
        """The scores of all classes but the background, taken as one. matrix: C×A."""
        rows = torch.arange(self.num_classes) != self.background
        columns = torch.arange(self.num_answers) != self.background
        columns[self.num_classes :] = False  # predicted as no class
        hit = matrix[rows][:, columns].sum().item()
        both = matrix[rows].sum().item() + matrix[:, columns].sum().item()
        return {
            "foreground_iou": Number("foreground IoU", hit / (both - hit) if both else None),
            "foreground_dice": Number("foreground Dice", 2 * hit / both if both else None),
        }

    def parts(self, counts: Tensor) -> Tensor:
        """N×3C float64: of each image, by class, the pixels that are right, labelled and predicted, which is
        all that the IoU needs. counts: N×C×A, sparse."""
        counts = counts.coalesce()
        (image, truth, answer), pixels = counts.indices(), counts.values().double()
        found = torch.zeros(len(counts), 3, self.num_classes + 1, dtype=torch.float64)  # a spare for no class
        answer = answer.clamp(max=self.num_classes)
        right = truth == answer
        for place, classes, chosen in ((0, truth, right), (1, truth, ...), (2, answer, ...)):
            found[:, place].index_put_((image[chosen], classes[chosen]), pixels[chosen], accumulate=True)
        return found[..., : self.num_classes].flatten(1)

    def resampled(self, parts: np.ndarray) -> dict[str, np.ndarray]:
        """`miou` (R) and `iou` (R×C) of sums of `parts`, R×3C float64: the values of `scores`, NaN for
        None."""
        return resampled_iou(*parts.reshape(len(parts), 3, -1).transpose(1, 0, 2), self.absent)


def resampled_iou(
    hit: np.ndarray, truth: np.ndarray, answer: np.ndarray, absent: str
) -> dict[str, np.ndarray]:
    """`miou` (R) and `iou` (R×C) of R resamples, NaN for None, from the pixels of each class that are right,
    labelled and predicted, R×C float64 each. absent: as in `by_class`."""
    of_absent = {"union": np.nan, "gt": np.nan, "zero": 0.0, "one": 1.0}[absent]
    union = truth + answer - hit
    iou = np.divide(hit, union, out=np.full_like(hit, of_absent), where=union > 0)  # R×C
    if absent == "gt":
        iou[truth == 0] = np.nan
    known = ~np.isnan(iou)
    total, number = np.where(known, iou, 0.0).sum(1), known.sum(1)
    miou = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
    return {"miou": miou, "iou": iou}


def by_class(part: Tensor, whole: Tensor, is_absent: Tensor, absent: str) -> list[float | None]:
    """part / whole of each class (tensors of length C). The rule `absent` determines the value of absent
    classes and of 0 / 0."""
    of_absent = {"union": None, "gt": None, "zero": 0.0, "one": 1.0}[absent]
    of_nothing = None if of_absent is None else 0.0
    return [
        of_absent if missing else p / w if w else of_nothing
        for p, w, missing in zip(part.tolist(), whole.tolist(), is_absent.tolist(), strict=True)
    ]


def _kappa(hit: Tensor, truth: Tensor, answer: Tensor) -> float | None:
    """Cohen's kappa from float64 pixel counts of each class: right, labelled, predicted."""
    pixels = truth.sum().item()
    if not pixels:
        return None
    agreed, by_chance = hit.sum().item() / pixels, (truth @ answer).item() / pixels**2
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else None


def mean_of(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def confusion(
    num_classes: int,
    ignore_index: int,
    absent: str = "union",
    num_answers: int | None = None,
    facts: Facts | None = None,
    target: Target = CLASSES,
) -> Confusion:
    """Pixel accuracy, mean accuracy, IoU, Dice and kappa from one confusion matrix over the whole set.

    With two classes, or with a class named background, also IoU and Dice of the foreground: all classes but
    the background, which of two classes is the first unless the second has that name."""
    # Of labels, metric.foreground gives the scores of the foreground, with those of its threshold.
    background = None if facts is None or target.labels else facts.background
    return Confusion(num_classes, ignore_index, absent, num_answers, background)
