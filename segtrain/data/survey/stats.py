"""Class frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segtrain.errors import DataError
from segtrain.sample import IGNORE
from segtrain.text import count


@dataclass(frozen=True)
class Frequency:
    """pixels: int64[C], pixels per class. in_images: int64[C], labelled pixels of all images in which the
    class occurs (the denominator of median frequency balancing)."""

    pixels: np.ndarray
    in_images: np.ndarray


def frequency(split, num_classes: int, ignore_index: int = IGNORE, skip_bad: bool = False) -> Frequency:
    """Class frequencies over all targets of a split. Images are not read if the split has a method
    `target(index)`. skip_bad: leave out targets that cannot be read. DataError if no pixel has a
    label."""
    pixels = np.zeros(num_classes, np.int64)
    in_images = np.zeros(num_classes, np.int64)
    target = getattr(split, "target", None) or (lambda index: split[index].target)
    for index in range(len(split)):
        try:
            labels = target(index)
        except DataError:  # reported by the loader when it reads the sample
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
