"""mIoU in bands around true boundaries, as a curve over the width of the band."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.metric.boundary import beside_another, filled
from segtrain.metric.confusion import Confusion
from segtrain.options import Length, between
from segtrain.sample import Curve, ScoreDict

WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)


class Trimap:
    """The mIoU of the pixels within w pixels of a true boundary, for several w (Kohli, Ladický & Torr 2009,
    "Robust higher order potentials for enforcing label consistency"; Chen et al. 2018, "DeepLab", fig. 6)."""

    needs = frozenset({"decisions"})

    def __init__(
        self,
        num_classes: int,
        ignore_index: int,
        widths_px: tuple[int, ...],
        absent: str = "union",
        num_answers: int | None = None,
    ):
        self._confusion = Confusion(num_classes, ignore_index, absent, num_answers)
        self.widths_px = widths_px

    def counts(self, target: Tensor, *, decisions: Tensor) -> Tensor:
        """B×W×C×A int64, one row per image: the confusion matrices of its rings, from each width to the next
        one. target, decisions: B×H×W integers."""
        pairs = zip(target.cpu(), decisions.cpu(), strict=True)
        return torch.stack([self._of_image(*pair) for pair in pairs])

    def _of_image(self, true: Tensor, predicted: Tensor) -> Tensor:
        ring = rings(true.numpy(), self._confusion.ignore_index, self.widths_px)
        chosen = (torch.from_numpy(ring == place) for place in range(len(self.widths_px)))
        return torch.stack([self._confusion.matrix(true[one], predicted[one]) for one in chosen])

    def scores(self, counts: Tensor) -> ScoreDict:
        """`trimap`: the mIoU within each width. counts: W×C×A, summed over images."""
        within = counts.cumsum(0)
        miou = tuple(self._confusion.scores(one)["miou"].value for one in within)
        widths = tuple(map(float, self.widths_px))
        return {"trimap": Curve("mIoU near boundaries", "band in px", widths, miou)}


def rings(target: np.ndarray, ignore_index: int, widths_px: tuple[int, ...]) -> np.ndarray:
    """H×W integers: the place in `widths_px`, which increase, of the smallest width within which a labelled
    pixel lies of a boundary; len(widths_px) for all other pixels.

    The pixels on both sides of a boundary, which have a 4-neighbour of another class, lie within 1 px of it;
    others within w if the Euclidean distance to one of those is at most w - 1. Pixels without a label take
    the nearest label, so that a thin unlabelled line between two objects is a boundary too.
    """
    outside = np.full(target.shape, len(widths_px))
    if (target == ignore_index).all():
        return outside
    boundary = beside_another(filled(target, ignore_index)[0])
    if not boundary.any():
        return outside
    away = cv2.distanceTransform((~boundary).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ring = np.searchsorted(np.asarray(widths_px) + 1e-4, away + 1)
    return np.where(target == ignore_index, len(widths_px), ring)


def trimap(
    num_classes: int,
    ignore_index: int,
    widths_px: Annotated[tuple[Annotated[int, between(1, 1000)], ...], Length(1, 50)] = WIDTHS,
    absent: str = "union",
    num_answers: int | None = None,
) -> Trimap:
    """mIoU within bands around true boundaries, as a curve over their width.

    Options:
        widths_px: widths of the band on each side of a boundary, in pixels, increasing
    """
    if list(widths_px) != sorted(set(widths_px)):
        raise ConfigError(f"metric.trimap.widths_px is {list(widths_px)}; give different widths, increasing")
    return Trimap(num_classes, ignore_index, tuple(widths_px), absent, num_answers)
