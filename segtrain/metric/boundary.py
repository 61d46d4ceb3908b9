"""How well boundaries are met: the boundary F-score."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


class Boundary:
    """The boundary F-score, averaged over the images that hold a boundary."""

    def __init__(self, num_classes: int, ignore_index: int, tolerance_px: float):
        self.num_classes, self.ignore_index, self.tolerance_px = num_classes, ignore_index, tolerance_px

    def counts(self, prediction: Tensor, target: Tensor) -> Tensor:
        """2 float64: the sum of the images' scores, and how many have one. Both are B×H×W integers."""
        pairs = zip(prediction.cpu().numpy(), target.cpu().numpy(), strict=True)
        scores = [boundary_f(*pair, self.num_classes, self.ignore_index, self.tolerance_px) for pair in pairs]
        known = [score for score in scores if score is not None]
        return torch.tensor([sum(known), len(known)], dtype=torch.float64)

    def scores(self, counts: Tensor, absent: str = "union") -> dict:
        """`boundary_f` in 0..1; None if no image holds a boundary. `absent` has no say."""
        total, images = counts.tolist()
        return {"boundary_f": total / images if images else None}


def boundary(num_classes: int, ignore_index: int, tolerance_px: float = 2.0) -> Boundary:
    """Boundary F-score: the share of boundary pixels that have their like within a tolerance, both ways.

    Options:
        tolerance_px: how far apart two boundaries may be
    """
    return Boundary(num_classes, ignore_index, tolerance_px)


def boundary_f(prediction: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int, tolerance_px: float) -> float | None:
    """The boundary F-score of one image in 0..1 (Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?").

    A class's boundary is its pixels beside a pixel of another class. Precision is the share of its predicted boundary that lies
    within `tolerance_px` (Euclidean) of its true one, recall the reverse; F = 2PR / (P + R), averaged over the classes that have
    a boundary in either. None if none has one.

    prediction, target: H×W integers. Pixels without a label take the nearest label, so that a thin unlabelled line between two
    objects is a boundary as any other; what is farther than the tolerance from all labels does not count.
    """
    if (target == ignore_index).all():
        return None
    target, distance = _filled(target, ignore_index)
    counted = distance <= tolerance_px
    true, answered = _beside_another(target) & counted, _beside_another(prediction) & counted
    scores = []
    for index in range(num_classes):
        ours, theirs = answered & (prediction == index), true & (target == index)
        if ours.any() or theirs.any():
            scores.append(_f(ours, theirs, tolerance_px))
    return float(np.mean(scores)) if scores else None


def _filled(target: np.ndarray, ignore_index: int) -> tuple[np.ndarray, np.ndarray]:
    """The target with the nearest label where there was none, and how far that is in pixels."""
    unknown = (target == ignore_index).astype(np.uint8)
    if not unknown.any():
        return target, np.zeros(target.shape, np.float32)
    distance, nearest = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    labels = np.zeros(int(nearest.max()) + 1, target.dtype)
    labels[nearest[unknown == 0]] = target[unknown == 0]
    return labels[nearest], distance


def _beside_another(classes: np.ndarray) -> np.ndarray:
    """H×W bool: pixels one of whose four neighbours has another class."""
    found = np.zeros(classes.shape, bool)
    for axis in (0, 1):
        differ = np.diff(classes.astype(np.int64), axis=axis) != 0
        for ends in ((0, 1), (1, 0)):
            found |= np.pad(differ, [ends if one == axis else (0, 0) for one in (0, 1)])
    return found


def _f(ours: np.ndarray, theirs: np.ndarray, tolerance_px: float) -> float:
    precision, recall = _share_near(ours, theirs, tolerance_px), _share_near(theirs, ours, tolerance_px)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _share_near(points: np.ndarray, others: np.ndarray, tolerance_px: float) -> float:
    """The share of `points` within the tolerance of one of `others`; 0 if there are none of either."""
    if not points.any() or not others.any():
        return 0.0
    distance = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((distance[points] <= tolerance_px + 1e-4).mean())
