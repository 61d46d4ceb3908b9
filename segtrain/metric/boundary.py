"""Boundary metrics: the boundary F-score and the mIoU near boundaries (trimap)."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
import torch
from torch import Tensor

from segtrain.metric.confusion import Confusion
from segtrain.options import ABOVE_0
from segtrain.sample import Number, ScoreDict


class Boundary:
    """The boundary F-score, averaged over the images that have a boundary, and the mIoU near true
    boundaries."""

    needs = frozenset({"decisions"})

    def __init__(
        self,
        num_classes: int,
        ignore_index: int,
        tolerance_px: float,
        absent: str = "union",
        num_answers: int | None = None,
    ):
        self.num_classes, self.ignore_index, self.tolerance_px = num_classes, ignore_index, tolerance_px
        self._near = Confusion(num_classes, ignore_index, absent, num_answers)

    def counts(self, target: Tensor, *, decisions: Tensor) -> Tensor:
        """B×(2 + C·A) float64, one row per image: its boundary F-score and 1 (both 0 if the image has no
        boundary), then its confusion matrix within `near_boundary`. target, decisions: B×H×W integers."""
        pairs = zip(target.cpu().numpy(), decisions.cpu().numpy(), strict=True)
        return torch.stack([self._of_image(*pair) for pair in pairs])

    def _of_image(self, true: np.ndarray, predicted: np.ndarray) -> Tensor:
        score = boundary_f(predicted, true, self.num_classes, self.ignore_index, self.tolerance_px)
        counts = torch.zeros(2 + self.num_classes * self._near.num_answers, dtype=torch.float64)
        if score is not None:
            counts[0], counts[1] = score, 1
            band = near_boundary(true, self.ignore_index, self.tolerance_px)
            near = self._near.matrix(torch.from_numpy(true[band]), torch.from_numpy(predicted[band]))
            counts[2:] = near.flatten()
        return counts

    def scores(self, counts: Tensor) -> ScoreDict:
        """`boundary_f` and `boundary_miou`, in 0..1; None if no image has a boundary. counts: 2 + C·A, summed
        over images."""
        (total, images), near = counts[:2].tolist(), counts[2:].view(self.num_classes, -1)
        miou = self._near.scores(near)["miou"].value if images else None
        return {
            "boundary_f": Number("boundary F", total / images if images else None),
            "boundary_miou": Number("mIoU near boundaries", miou),
        }


def boundary(
    num_classes: int,
    ignore_index: int,
    tolerance_px: Annotated[float, ABOVE_0] = 2.0,
    absent: str = "union",
    num_answers: int | None = None,
) -> Boundary:
    """Boundary F-score and mIoU near true boundaries.

    Options:
        tolerance_px: largest distance in pixels at which a predicted and a true boundary match, and half the
            width of the band in which the mIoU is computed
    """
    return Boundary(num_classes, ignore_index, tolerance_px, absent, num_answers)


def boundary_f(
    prediction: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int, tolerance_px: float
) -> float | None:
    """The boundary F-score of one image in 0..1 (Csurka et al. 2013, "What is a good evaluation measure for
    semantic segmentation?").

    A class's boundary is its pixels with a 4-neighbour of another class. Precision is the share of its
    predicted boundary that lies within `tolerance_px` (Euclidean) of its true one, recall the reverse;
    F = 2PR / (P + R), averaged over the classes with a boundary in prediction or target. None if no class has
    one.

    prediction, target: H×W integers. Pixels without a label take the nearest label, so that a thin unlabelled
    line between two objects is a boundary too. Pixels farther than the tolerance from every label do not
    count.
    """
    if (target == ignore_index).all():
        return None
    target, distance = filled(target, ignore_index)
    counted = distance <= tolerance_px
    true, predicted = beside_another(target) & counted, beside_another(prediction) & counted
    scores = []
    for index in range(num_classes):
        of_prediction, of_target = predicted & (prediction == index), true & (target == index)
        if of_prediction.any() or of_target.any():
            scores.append(_f(of_prediction, of_target, tolerance_px))
    return float(np.mean(scores)) if scores else None


def near_boundary(target: np.ndarray, ignore_index: int, tolerance_px: float) -> np.ndarray:
    """H×W bool: labelled pixels within `tolerance_px` (Euclidean) of the target's boundaries. The mIoU in
    this band ("trimap") shows how sharp the predicted boundaries are (Kohli et al. 2009; Chen et al. 2018,
    "Encoder-decoder with atrous separable convolution", fig. 5)."""
    boundaries = beside_another(filled(target, ignore_index)[0])
    return _near(boundaries, tolerance_px) & (target != ignore_index)


def filled(target: np.ndarray, ignore_index: int) -> tuple[np.ndarray, np.ndarray]:
    """The target with unlabelled pixels set to the nearest label, and the distance of each pixel to that
    label (H×W float32, in pixels)."""
    unknown = (target == ignore_index).astype(np.uint8)
    if not unknown.any():
        return target, np.zeros(target.shape, np.float32)
    distance, nearest = cv2.distanceTransformWithLabels(
        unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = np.zeros(int(nearest.max()) + 1, target.dtype)
    labels[nearest[unknown == 0]] = target[unknown == 0]
    return labels[nearest], distance


def beside_another(classes: np.ndarray) -> np.ndarray:
    """H×W bool: pixels with a 4-neighbour of another class."""
    found = np.zeros(classes.shape, bool)
    for axis in (0, 1):
        differ = np.diff(classes.astype(np.int64), axis=axis) != 0
        for ends in ((0, 1), (1, 0)):
            found |= np.pad(differ, [ends if one == axis else (0, 0) for one in (0, 1)])
    return found


def _f(predicted: np.ndarray, true: np.ndarray, tolerance_px: float) -> float:
    """The F-score of a class, from its predicted and true boundaries, both H×W bool."""
    precision, recall = _share_near(predicted, true, tolerance_px), _share_near(true, predicted, tolerance_px)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _share_near(points: np.ndarray, others: np.ndarray, tolerance_px: float) -> float:
    """The share of `points` within the tolerance of any of `others`; 0 if either is empty. Both are H×W
    bool."""
    if not points.any() or not others.any():
        return 0.0
    return float(_near(others, tolerance_px)[points].mean())


def _near(points: np.ndarray, tolerance_px: float) -> np.ndarray:
    """H×W bool: pixels within the tolerance of any of `points` (H×W bool)."""
    if not points.any():
        return np.zeros(points.shape, bool)
    return (
        cv2.distanceTransform((~points).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        <= tolerance_px + 1e-4
    )
