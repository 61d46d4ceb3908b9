"""The scores of the Cityscapes benchmark: iIoU of classes, IoU and iIoU of categories."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.metric.confusion import Confusion
from segtrain.sample import Facts, Number, PerClass, ScoreDict

CATEGORIES = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
"""The evaluated classes of each category."""


class Objects(NamedTuple):
    """Objects of a class. id: of the class in *_instanceIds.png. size: their average size in the training
    split, in pixels."""

    id: int
    size: float


OBJECTS = {
    "person": Objects(24, 3462.4756337644),
    "rider": Objects(25, 3930.4788056518),
    "car": Objects(26, 12794.0202738185),
    "truck": Objects(27, 27855.1264367816),
    "bus": Objects(28, 35732.1511111111),
    "train": Objects(31, 67583.7075812274),
    "motorcycle": Objects(32, 6298.7200839748),
    "bicycle": Objects(33, 4672.3249222261),
}
"""As in cityscapesScripts, evaluation/evalPixelLevelSemanticLabeling.py (`avgClassSize`)."""
BASE = 1000
"""The number of an object is BASE · the id of its class + a running number."""
MAX_ID = 65535 // BASE


class Cityscapes:
    """The scores of the benchmark's evaluation script besides the IoU of the classes, which `Confusion` with
    absent=union gives.

    Every category lies wholly within the classes with objects (human, vehicle) or wholly outside of them, so
    class indices are enough: labels outside of the 19 classes are ignored in the ground truth.
    """

    needs = frozenset({"decisions", "instances"})

    def __init__(self, facts: Facts, num_answers: int | None = None):
        """facts: with the 19 classes, in any order."""
        known = [name for names in CATEGORIES.values() for name in names]
        wrong = sorted({*facts.classes} ^ {*known})
        if wrong:
            raise ConfigError(
                f"metric.cityscapes scores the 19 classes of Cityscapes and nothing else; {wrong[0]!r} is "
                f"{'one of them and missing' if wrong[0] in known else 'another class'}; use data=cityscapes "
                f"with data.classes=19, or another metric"
            )
        self._confusion = Confusion(facts.num_classes, facts.ignore_index, num_answers=num_answers)
        self.num_classes = facts.num_classes
        category_of = {name: i for i, names in enumerate(CATEGORIES.values()) for name in names}
        self._category = torch.tensor([category_of[name] for name in facts.classes])  # C: category
        self._class = torch.full(
            (MAX_ID + 1,), -1
        )  # id -> class index; -1: not evaluated, or without objects
        self._size = torch.full((facts.num_classes,), torch.nan, dtype=torch.float64)
        for name, (label, size) in OBJECTS.items():
            index = facts.classes.index(name)
            self._class[label], self._size[index] = index, size

    def counts(self, target: Tensor, *, decisions: Tensor, instances: Tensor) -> Tensor:
        """B×(C·A + 3·C) float64, one row per image: its confusion matrix, then by class the weighted pixels
        of objects (a), those of them that are of the right class (b), and of the right category (c). An
        object of n pixels has the weight average size / n in each of them.

        target, decisions: B×H×W integers. instances: B×H×W object numbers, 1000·id + number; 0: no object.
        """
        rows = zip(target, decisions, instances, strict=True)
        return torch.stack([self._of_image(*row) for row in rows])

    def _of_image(self, target: Tensor, decisions: Tensor, instances: Tensor) -> Tensor:
        matrix = self._confusion.matrix(target, decisions).flatten().double()
        return torch.cat([matrix, self._of_objects(decisions.flatten(), instances.flatten()).flatten()])

    def _of_objects(self, decisions: Tensor, numbers: Tensor) -> Tensor:
        """3×C float64: weighted pixels of objects by class, see `counts`. decisions, numbers: one value per
        pixel."""
        class_of, size = self._class.to(numbers.device), self._size.to(numbers.device)
        # One more for decisions of no class.
        category = torch.cat([self._category, torch.tensor([-1])]).to(numbers.device)
        numbers = numbers.to(torch.int32)
        evaluated = class_of[numbers // BASE] >= 0
        decisions = decisions[evaluated].long()
        objects, place, pixels = torch.unique(numbers[evaluated], return_inverse=True, return_counts=True)
        classes = class_of[objects // BASE]  # one per object, as are `pixels` and the sums below
        right = decisions == classes[place]
        right_category = category[decisions] == category[classes][place]
        sums = [pixels, *(torch.bincount(place, one, len(objects)) for one in (right, right_category))]
        weight = size[classes] / pixels
        by_class = torch.zeros(3, self.num_classes, dtype=torch.float64, device=numbers.device)
        return by_class.index_add_(1, classes, torch.stack([one.double() * weight for one in sums]))

    def scores(self, counts: Tensor) -> ScoreDict:
        """`iiou` by class, `category_iou` and `category_iiou` by category, and their means `miiou`,
        `category_miou`, `category_miiou`, all in 0..1.

        counts: summed over images. iIoU = iTP / (iTP + FP + iFN): the pixels of objects are weighted so that
        all objects of a class weigh the same, false positives are not (Cordts et al. 2016, sec. 4.1). None:
        neither labelled nor predicted, and for the iIoU of classes without objects.
        """
        counts, c = counts.double().cpu(), self.num_classes
        matrix, objects = counts[: -3 * c].view(c, -1)[:, :c], counts[-3 * c :].view(3, c)
        labelled = counts[: -3 * c].view(c, -1).sum(1)
        of_category = torch.nn.functional.one_hot(self._category, len(CATEGORIES)).double()  # C×G
        grouped = of_category.T @ matrix @ of_category  # G×G
        false = matrix.sum(0) - matrix.diagonal()
        false_of_category = grouped.sum(0) - grouped.diagonal()
        has_objects = ~self._size.isnan()
        objects_of_category = objects @ of_category  # 3×G
        category_has_objects = (of_category[~has_objects] == 0).all(0)
        iiou = _shares(objects[1], objects[0] + false, has_objects)
        category_iou = _shares(grouped.diagonal(), labelled @ of_category + false_of_category)
        category_iiou = _shares(
            objects_of_category[2], objects_of_category[0] + false_of_category, category_has_objects
        )
        names = tuple(CATEGORIES)
        return {
            "iiou": PerClass("iIoU", iiou, mean="miiou"),
            "category_iou": PerClass("IoU", category_iou, "category_miou", names),
            "category_iiou": PerClass("iIoU", category_iiou, "category_miiou", names),
            "miiou": Number("mean iIoU", _mean(iiou)),
            "category_miou": Number("category mIoU", _mean(category_iou)),
            "category_miiou": Number("category mean iIoU", _mean(category_iiou)),
        }


def _shares(part: Tensor, whole: Tensor, counted: Tensor | None = None) -> tuple[float | None, ...]:
    """part / whole, None where the whole is 0 or the value is not `counted`."""
    counted = (whole > 0) if counted is None else counted & (whole > 0)
    rows = zip(part.tolist(), whole.tolist(), counted.tolist(), strict=True)
    return tuple(p / w if yes else None for p, w, yes in rows)


def _mean(values: tuple[float | None, ...]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def cityscapes(facts: Facts, num_answers: int | None = None) -> Cityscapes:
    """Scores of the Cityscapes benchmark besides class IoU: iIoU of classes, IoU and iIoU of categories.

    Cordts et al.: The Cityscapes dataset for semantic urban scene understanding, CVPR 2016; equal to the
    official script (cityscapesScripts, evalPixelLevelSemanticLabeling). Needs the object numbers of the fine
    annotations.
    """
    return Cityscapes(facts, num_answers)
