"""The mIoU of the same predictions under the conventions of several programs, and which rule moves it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segtrain.data.resized import nearest, resized_size
from segtrain.metric.confusion import Confusion
from segtrain.sample import Facts
from segtrain.text import number, table

SHORT_SIDE = 520
"""Shorter side in pixels of the images that torchvision's reference scripts score."""
BACKGROUND = ("background", "_background_", "bg")


@dataclass(frozen=True)
class Row:
    """A convention. name: the programs that have it. rule: where it differs from the first row. miou: None if
    nothing can be scored, nan if the convention gives nan."""

    name: str
    rule: str
    miou: float | None


class Conventions:
    """Counts of all images, from which every convention follows."""

    def __init__(self, facts: Facts):
        self._num_classes = facts.num_classes
        first = facts.classes[0].lower()
        self._background = first if first in BACKGROUND else None
        self._by_rule = {
            rule: Confusion(facts.num_classes, facts.ignore_index, rule, facts.num_classes + 1)
            for rule in ("union", "gt", "zero", "one")
        }
        shape = (facts.num_classes, facts.num_classes + 1)  # the last column: no class
        self._whole = torch.zeros(shape, dtype=torch.int64)
        self._resized = torch.zeros(shape, dtype=torch.int64)
        self._of_images: dict[str, list[float]] = {"union": [], "one": [], "micro": []}

    def add(self, target: np.ndarray, decisions: np.ndarray) -> None:
        """Counts an image. target: H×W class indices. decisions: H×W, C for no class."""
        matrix = self._matrix(target, decisions)
        self._whole += matrix
        size = resized_size(target.shape, SHORT_SIDE)
        self._resized += self._matrix(nearest(target, size), nearest(decisions, size))
        if matrix.any():
            self._of_images["union"].append(self._miou(matrix))
        self._of_images["one"].append(self._miou(matrix, "one"))
        self._of_images["micro"].append(_micro(matrix))

    def _matrix(self, target: np.ndarray, decisions: np.ndarray) -> Tensor:
        """C×(C + 1)"""
        return self._by_rule["union"].matrix(torch.from_numpy(target), torch.from_numpy(decisions))

    def _miou(self, matrix: Tensor, absent: str = "union") -> float | None:
        return self._by_rule[absent].scores(matrix)["miou"].value

    def rows(self) -> list[Row]:
        """The conventions, the first one being that of the benchmarks."""
        whole = self._whole
        present = int(self._by_rule["union"].scores(whole)["present"].value)
        absent = self._num_classes - present
        union = self._miou(whole)
        rows = [
            Row("Cityscapes, VOC, mmsegmentation", f"absent classes left out ({absent} here)", union),
            Row("COCO-Stuff", "classes without a labelled pixel left out", self._miou(whole, "gt")),
            Row("", "absent classes count as 0", self._miou(whole, "zero")),
            Row("torchvision, own size", "absent classes make it nan", math.nan if absent else union),
            Row(
                "torchvision",
                f"labels resized to a shorter side of {SHORT_SIDE}, absent classes left out",
                self._miou(self._resized),
            ),
            Row("smp, macro", "absent classes count as 1", self._miou(whole, "one")),
            Row("smp, micro", "pixels of all classes in one IoU", _micro(whole)),
            Row("smp, macro-imagewise", "mean over images, absent classes count as 1", self._mean("one")),
            Row("smp, micro-imagewise", "mean over images of one IoU each", self._mean("micro")),
            Row(
                "torchmetrics, MeanIoU",
                "mean over images, classes absent there left out",
                self._mean("union"),
            ),
        ]
        return rows + (self._without_background() if self._background else [])

    def _mean(self, key: str) -> float | None:
        values = self._of_images[key]
        return math.fsum(values) / len(values) if values else None

    def _without_background(self) -> list[Row]:
        """The two ways to leave out class 0."""
        of_classes = self._by_rule["union"].scores(self._whole)["iou"].values[1:]
        known = [value for value in of_classes if value is not None]
        ignored = self._whole.clone()
        ignored[0] = 0
        ignored[:, self._num_classes] += ignored[:, 0]  # predicted background is no class
        ignored[:, 0] = 0
        return [
            Row(
                "",
                f"mean without {self._background}, whose pixels count as errors of the others",
                math.fsum(known) / len(known) if known else None,
            ),
            Row(
                "mmsegmentation, reduce_zero_label",
                f"pixels labelled {self._background} ignored",
                self._miou(ignored),
            ),
        ]


def _micro(matrix: Tensor) -> float:
    """The IoU of the pixels of all classes: hits / (hits + false positives + false negatives); 1 if there are
    none. matrix: C×(C + 1)."""
    hits = int(matrix.diagonal().sum())
    union = int(matrix.sum()) + int(matrix[:, :-1].sum()) - hits
    return hits / union if union else 1.0


def lines(rows: list[Row]) -> list[str]:
    """The table for the terminal and a line that names the rule which moves the mIoU most."""
    first = rows[0].miou
    shown = [(row.name or "-", number(row.miou), _moved(row.miou, first), row.rule) for row in rows]
    shown[0] = (*shown[0][:2], "", shown[0][3])
    printed = table(("convention", "mIoU", "moved", "rule"), shown, left=(0, 3))
    moved = [(abs(row.miou - first), row) for row in rows[1:] if _known(row.miou) and _known(first)]
    largest, row = max(moved, key=lambda pair: pair[0], default=(0.0, None))
    if row is None or largest < 5e-5:
        return [*printed, "no rule moves the mIoU"]
    return [*printed, f"most moved by {_moved(row.miou, first)}: {row.rule}"]


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _moved(value: float | None, first: float | None) -> str:
    return f"{value - first:+.4f}" if _known(value) and _known(first) else "-"


def as_record(rows: list[Row]) -> list[dict]:
    """The rows as plain values for scores.json; nan is None there."""
    return [
        {"convention": row.name, "rule": row.rule, "miou": row.miou if _known(row.miou) else None}
        for row in rows
    ]
