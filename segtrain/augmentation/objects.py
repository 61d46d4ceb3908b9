"""Objects of a sample: instances, or connected components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from segtrain.errors import ConfigError, nearest
from segtrain.sample import Facts, Sample, Target, no_label

SMALLEST_SHARE = 0.001
"""Least share of the image's pixels that a large object has."""
MIN_VISIBLE_PX = 20
"""An object that operations leave with fewer pixels is no object any more."""


@dataclass(frozen=True)
class ObjectClasses:
    """The classes whose objects an operation takes, and with which probability.

    probabilities: by class index; None: 1 for every object, also of other classes. components: indices of the
    classes whose connected components are objects where a sample has no instances.
    """

    probabilities: Mapping[int, float] | None
    components: tuple[int, ...]

    def probability_of(self, label: int | None) -> float:
        """Probability that an object of this class is taken; label None: an object without a class."""
        if self.probabilities is None:
            return 1.0
        return 0.0 if label is None else self.probabilities.get(label, 0.0)


def object_classes(
    where: str,
    named: Mapping[str, float] | None,
    facts: Facts | None,
    ignore_index: int,
    target: Target,
) -> ObjectClasses:
    """The `ObjectClasses` of an operation's option `classes`.

    named: probability by class name. None: 1 for instances of every class; without instances, objects are the
    connected components of the thing classes or, where the data set names no things, of every class but the
    background.

    ConfigError that begins with `where`, the key of the operation, if a name is unknown, if classes are named
    and the task has none, or if the task has labels, which overlap.
    """
    names = () if facts is None else facts.classes
    if target.multilabel:
        raise ConfigError(
            f"{where} moves objects of classes, and pixels of this task have any number of labels; leave it "
            f"out"
        )
    if not target.classes:
        if named is not None:
            raise ConfigError(f"{where}.classes names classes, and the task has none; use null")
        return ObjectClasses(None, ())
    if named is not None:
        for name in named:
            if name not in names:
                raise ConfigError(
                    f"{where}.classes has {name!r}{nearest(name, names)}; allowed: {', '.join(names)}"
                )
        probabilities = {names.index(name): probability for name, probability in named.items()}
        return ObjectClasses(probabilities, tuple(probabilities))
    if facts is not None and facts.things:
        return ObjectClasses(None, facts.things)
    background = None if facts is None else facts.background
    return ObjectClasses(None, tuple(n for n in range(len(names) or ignore_index) if n != background))


def objects_of(sample: Sample, classes: Sequence[int]) -> np.ndarray:
    """H×W integers: a different number for each object, 0 elsewhere.

    Objects are the sample's instances; if it has none, the connected components (8-connectivity) of each
    class in `classes`.
    """
    if sample.instances is not None:
        return sample.instances
    found = np.zeros(sample.image.shape[:2], np.int32)
    count = 0
    for index in classes:
        inside = sample.target == index
        if inside.any():
            parts, labels = cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)
            found[inside] = labels[inside] + count
            count += parts - 1
    return found


def large_objects(objects: np.ndarray) -> np.ndarray:
    """int[N]: numbers of the objects of at least SMALLEST_SHARE of the image. objects: see `objects_of`."""
    areas = np.bincount(objects.ravel())
    areas[0] = 0
    return np.flatnonzero(areas >= max(1, SMALLEST_SHARE * objects.size))


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Bounding box (top, left, bottom, right) of the pixels that are set; bottom and right exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def classes_of(objects: np.ndarray, target: np.ndarray, ignore_index: int) -> dict[int, int | None]:
    """The class of most pixels of each object, by number; None if the target holds no classes (H×W×T, or
    measured values). Objects without any label are left out."""
    places = np.flatnonzero(objects)
    numbers, labels = objects.ravel()[places], target.reshape(-1, *target.shape[2:])[places]  # N, N×…
    if target.ndim != 2 or target.dtype.kind == "f":
        labelled = ~unlabelled(labels[None], ignore_index)[0]
        return dict.fromkeys(np.unique(numbers[labelled]).tolist())
    present = np.flatnonzero(np.bincount(numbers))
    rows = np.searchsorted(present, np.arange(int(objects.max()) + 1))  # row of each number
    bins = ignore_index + 1
    counts = np.bincount(rows[numbers] * bins + labels, minlength=len(present) * bins).reshape(-1, bins)
    counts[:, ignore_index] = 0
    found = zip(present.tolist(), counts.argmax(1).tolist(), counts.any(1).tolist(), strict=True)
    return {number: label for number, label, labelled in found if labelled}


def unlabelled(target: np.ndarray, ignore_index: int) -> np.ndarray:
    """H×W bool: pixels without a label; of H×W×T, without any."""
    unknown = no_label(target.dtype, ignore_index)
    missing = np.isnan(target) if target.dtype.kind == "f" else target == unknown
    return missing if missing.ndim == 2 else missing.all(2)


def nearest_pixel(mask: np.ndarray) -> np.ndarray:
    """H×W intp: of each pixel, the position in the flattened image of the nearest pixel that is set; at least
    one is."""
    _, numbers = cv2.distanceTransformWithLabels(
        (~mask).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    places = np.zeros(int(numbers.max()) + 1, np.intp)
    places[numbers[mask]] = np.flatnonzero(mask)
    return places[numbers]


def without_hidden(instances: np.ndarray, before: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """The instances without those that lost or gained pixels and have fewer than MIN_VISIBLE_PX left; their
    remaining pixels keep their labels.

    instances, before: H×W, now and before the change. changed: H×W bool.
    """
    counts = np.bincount(instances.ravel(), minlength=int(before.max(initial=0)) + 1)
    affected = np.bincount(np.append(instances[changed], before[changed]), minlength=len(counts)) > 0
    hidden = np.flatnonzero(affected & (counts > 0) & (counts < MIN_VISIBLE_PX))
    hidden = hidden[hidden > 0]
    if not len(hidden):
        return instances
    return np.where(np.isin(instances, hidden), 0, instances).astype(instances.dtype)
