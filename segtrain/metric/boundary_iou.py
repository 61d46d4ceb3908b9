"""Boundary IoU: the IoU of the pixels near the contours of masks."""

from __future__ import annotations

import math
from typing import Annotated

import cv2
import numpy as np
import torch
from torch import Tensor

from segtrain.metric.boundary import filled
from segtrain.options import WITHIN_0_1
from segtrain.sample import Number, PerClass, ScoreDict


class BoundaryIoU:
    """Boundary IoU of each class over the whole set (Cheng et al., CVPR 2021, "Boundary IoU: improving
    object-centric image segmentation evaluation", eq. 2):
    |(G_d ∩ G) ∩ (P_d ∩ P)| / |(G_d ∩ G) ∪ (P_d ∩ P)|, where G and P are the true and predicted masks of a
    class, and G_d and P_d the pixels within d pixels of their contours."""

    needs = frozenset({"decisions"})

    def __init__(self, num_classes: int, ignore_index: int, width: float):
        self.num_classes, self.ignore_index, self.width = num_classes, ignore_index, width

    def counts(self, target: Tensor, *, decisions: Tensor) -> Tensor:
        """B×C×2 int64, one row per image: pixels in both boundary regions of a class, and in any of the two.
        target, decisions: B×H×W integers.

        d is `width` times the image's diagonal, at least 1. Contours are those of the masks, and the border
        of the image counts as one, as in the paper's code. Pixels without a label do not count; the contours
        of true masks are found with the nearest label in their place, so the rim of an unlabelled area is
        none.
        """
        pairs = zip(target.cpu().numpy(), decisions.cpu().numpy(), strict=True)
        return torch.stack([torch.from_numpy(self._of_image(*pair)) for pair in pairs])

    def _of_image(self, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        counts = np.zeros((self.num_classes, 2), np.int64)
        labelled = true != self.ignore_index
        if not labelled.any():
            return counts
        true = filled(true, self.ignore_index)[0]
        d = max(1, round(self.width * math.hypot(*true.shape)))
        for index in np.union1d(true, predicted):
            if index < self.num_classes:
                regions = [boundary_region(classes == index, d) & labelled for classes in (true, predicted)]
                counts[index] = (regions[0] & regions[1]).sum(), (regions[0] | regions[1]).sum()
        return counts

    def scores(self, counts: Tensor) -> ScoreDict:
        """`boundary_iou` by class, None for a class without a boundary, and their mean `mean_boundary_iou`.
        counts: C×2, summed over images."""
        iou = [both / either if either else None for both, either in counts.tolist()]
        known = [one for one in iou if one is not None]
        mean = math.fsum(known) / len(known) if known else None
        return {
            "boundary_iou": PerClass("boundary IoU", tuple(iou), mean="mean_boundary_iou"),
            "mean_boundary_iou": Number("mean boundary IoU", mean),
        }


def boundary_region(mask: np.ndarray, d: int) -> np.ndarray:
    """H×W bool: the pixels of a mask within d pixels of its contour or of the image's border, in the
    chessboard distance, as eroding d times by 3×3 gives them."""
    kernel = np.ones((2 * d + 1, 2 * d + 1), np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)


def boundary_iou(
    num_classes: int, ignore_index: int, width: Annotated[float, WITHIN_0_1] = 0.02
) -> BoundaryIoU:
    """Boundary IoU (Cheng et al., CVPR 2021) of each class, and their mean.

    Options:
        width: distance from the contour up to which pixels count, as a share of the image's diagonal
    """
    return BoundaryIoU(num_classes, ignore_index, width)
