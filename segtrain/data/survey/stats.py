"""How often each class occurs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segtrain.errors import DataError
from segtrain.sample import IGNORE
from segtrain.text import count


@dataclass(frozen=True)
class Frequency:
    """pixels: int64[C], pixels of each class. in_images: int64[C], labelled pixels of the images that hold
    the class."""

    pixels: np.ndarray
    in_images: np.ndarray


def frequency(split, num_classes: int, ignore_index: int = IGNORE, skip_bad: bool = False) -> Frequency:
    """Counts over all targets of a split; by its method `target(index)` if it has one, so that images are not
    read. skip_bad: without those that cannot be read. DataError if no pixel has a label."""
    pixels = np.zeros(num_classes, np.int64)
    in_images = np.zeros(num_classes, np.int64)
    target = getattr(split, "target", None) or (lambda index: split[index].target)
    for index in range(len(split)):
        try:
            labels = target(index)
        except DataError:  # the loader says so when it comes to this sample
            if not skip_bad:
                raise
            continue
        counts = np.bincount(labels[labels != ignore_index].ravel(), minlength=num_classes)
        pixels += counts
        in_images += np.where(counts > 0, counts.sum(), 0)
    if not pixels.any():
        raise DataError(
            f"no pixel of {count(len(split), 'sample')} has a label, {split.name(0)} first; expected class "
            f"indices; "
            "correct the masks, or set data.label_map or data.ignore_value"
        )
    return Frequency(pixels, in_images)
