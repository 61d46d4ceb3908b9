"""What kind of mistake each wrong pixel is: missed or invented objects, boundaries, confused areas."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from segtrain.metric.boundary import near_boundary
from segtrain.metric.confusion import Confusion
from segtrain.options import WITHIN_0_1, between
from segtrain.sample import Number, ScoreDict

KINDS = ("missed", "invented", "boundary", "confused")
"""Every wrong pixel is of the first of these kinds that it belongs to. missed: it lies in a connected
component of a true class that is hardly hit. invented: in a predicted component that hardly overlaps its
class. boundary: near a true boundary. confused: all others, inside of an area that is found in part."""

BAND_PX = 3
MIN_SHARE = 0.1


class Found(NamedTuple):
    """The mistakes of one image. kinds: H×W uint8, 1 + the place in KINDS of each wrong pixel, 0 for right
    ones and for pixels without a label. objects: numbers of true components, of missed ones, of predicted
    components, of invented ones."""

    kinds: np.ndarray
    objects: tuple[int, int, int, int]


class Tally(NamedTuple):
    """Counts of a set of images. objects: as in `Found`. wrong: K×C×A int64 pixels of each kind by true and
    predicted class. whole: the confusion matrix, C×A int64."""

    objects: tuple[int, ...]
    wrong: Tensor
    whole: Tensor

    def mended(self, wrong: Tensor) -> Tensor:
        """The confusion matrix if the pixels `wrong` (C×A) were predicted as their true class."""
        right = torch.zeros_like(self.whole)
        right.diagonal().copy_(wrong.sum(1))
        return self.whole - wrong + right


class Mistakes:
    """How much mIoU is lost by each kind of mistake."""

    needs = frozenset({"decisions"})

    def __init__(
        self,
        num_classes: int,
        ignore_index: int,
        band_px: int = BAND_PX,
        min_share: float = MIN_SHARE,
        absent: str = "union",
        num_answers: int | None = None,
    ):
        self._confusion = Confusion(num_classes, ignore_index, absent, num_answers)
        self.band_px, self.min_share = band_px, min_share

    def counts(self, target: Tensor, *, decisions: Tensor) -> Tensor:
        """B×(4 + (K + 1)·C·A) int64, one row per image: its `Tally`, flat. target, decisions: B×H×W
        integers."""
        pairs = zip(target.cpu(), decisions.cpu(), strict=True)
        return torch.stack([self._of_image(*pair) for pair in pairs])

    def _of_image(self, true: Tensor, predicted: Tensor) -> Tensor:
        kinds, objects = self.of(true.numpy(), predicted.numpy())
        chosen = [torch.from_numpy(kinds == 1 + place) for place in range(len(KINDS))]
        wrong = [self._confusion.matrix(true[one], predicted[one]).flatten() for one in chosen]
        whole = self._confusion.matrix(true, predicted).flatten()
        return torch.cat([torch.tensor(objects), *wrong, whole])

    def of(self, target: np.ndarray, prediction: np.ndarray) -> Found:
        """The mistakes of an image. target, prediction: H×W integers."""
        return mistakes_of(target, prediction, self._confusion.ignore_index, self.band_px, self.min_share)

    def tally(self, counts: Tensor) -> Tally:
        """The counts of a set, from the sum of those of its images."""
        matrices = counts[4:].view(len(KINDS) + 1, self._confusion.num_classes, -1)
        return Tally(tuple(counts[:4].tolist()), matrices[:-1], matrices[-1])

    def miou(self, matrix: Tensor) -> float | None:
        """The mIoU of a confusion matrix, by the rule for absent classes."""
        return self._confusion.scores(matrix)["miou"].value

    def scores(self, counts: Tensor) -> ScoreDict:
        """`gain_KIND`: by how much the mIoU would rise if the pixels of a kind were right. The gains do not
        add up to what is lost, because the mIoU is no sum over pixels. counts: summed over images."""
        tally = self.tally(counts)
        lost = self.miou(tally.whole)
        gains = {}
        for kind, wrong in zip(KINDS, tally.wrong, strict=True):
            value = None if lost is None else self.miou(tally.mended(wrong)) - lost
            gains[f"gain_{kind}"] = Number(f"mIoU lost to {WORDS[kind]}", value)
        return gains


WORDS = {
    "missed": "missed objects",
    "invented": "invented objects",
    "boundary": "boundaries",
    "confused": "confused areas",
}


def mistakes_of(
    target: np.ndarray, prediction: np.ndarray, ignore_index: int, band_px: int, min_share: float
) -> Found:
    """The mistakes of an image, see KINDS. target, prediction: H×W integers. band_px: width of the band on
    each side of a boundary. min_share: a component is missed or invented if a smaller share of its labelled
    pixels is predicted as, or labelled with, its class; components are of 8 neighbours."""
    labelled = target != ignore_index
    wrong = labelled & (target != prediction)
    is_missed, num_true, num_missed = _failing(target, prediction, labelled, min_share)
    is_invented, num_predicted, num_invented = _failing(prediction, target, labelled, min_share)
    near = near_boundary(target, ignore_index, band_px - 1)
    kinds = np.select([~wrong, is_missed, is_invented, near], [0, 1, 2, 3], 4).astype(np.uint8)
    return Found(kinds, (num_true, num_missed, num_predicted, num_invented))


def _failing(
    classes: np.ndarray, others: np.ndarray, labelled: np.ndarray, min_share: float
) -> tuple[np.ndarray, int, int]:
    """H×W bool of the components of `classes` of whose labelled pixels less than `min_share` have the same
    class in `others`; the number of all components with a labelled pixel, and of those."""
    failing, total, failed = np.zeros(classes.shape, bool), 0, 0
    for index in np.unique(classes[labelled]):
        number, component = cv2.connectedComponents((classes == index).astype(np.uint8), connectivity=8)
        area = np.bincount(component[labelled], minlength=number)[1:]
        hit = np.bincount(component[labelled & (others == index)], minlength=number)[1:]
        fails = (area > 0) & (hit < min_share * area)
        failing |= np.concatenate([[False], fails])[component]
        total, failed = total + int((area > 0).sum()), failed + int(fails.sum())
    return failing, total, failed


def mistakes(
    num_classes: int,
    ignore_index: int,
    band_px: Annotated[int, between(1, 1000)] = BAND_PX,
    min_share: Annotated[float, WITHIN_0_1] = MIN_SHARE,
    absent: str = "union",
    num_answers: int | None = None,
) -> Mistakes:
    """By how much the mIoU would rise without missed objects, invented objects, wrong boundaries, confused
    areas.

    Options:
        band_px: width in pixels of the band on each side of a true boundary
        min_share: a connected component of which a smaller share is hit is a missed or an invented object
    """
    return Mistakes(num_classes, ignore_index, band_px, min_share, absent, num_answers)
