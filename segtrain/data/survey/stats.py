"""Class frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segtrain.data.joined import target_of
from segtrain.data.parts import Split
from segtrain.errors import DataError
from segtrain.sample import IGNORE
from segtrain.text import count


@dataclass(frozen=True)
class Frequency:
    """pixels: int64[C], pixels per class. in_images: int64[C], labelled pixels of all images in which the
    class occurs (the denominator of median frequency balancing)."""

    pixels: np.ndarray
    in_images: np.ndarray


def frequency(
    split: Split, num_classes: int, ignore_index: int = IGNORE, skip_bad: bool = False
) -> Frequency:
    """Class frequencies over all targets of a split; see `class_pixels` and `frequency_of`."""
    return frequency_of(class_pixels(split, num_classes, ignore_index, skip_bad), split)


def frequency_of(pixels: np.ndarray, split: Split) -> Frequency:
    """Class frequencies from the `class_pixels` of a split. DataError if no pixel has a label."""
    if not pixels.any():
        raise DataError(
            f"no pixel of {count(len(split), 'sample')} has a label, {split.name(0)} first; expected class "
            f"indices; "
            "correct the masks, or set data.label_map or data.ignore_value"
        )
    labelled = pixels.sum(axis=1, keepdims=True)  # N×1
    return Frequency(pixels.sum(axis=0), np.where(pixels > 0, labelled, 0).sum(axis=0))


def class_pixels(
    split: Split, num_classes: int, ignore_index: int = IGNORE, skip_bad: bool = False
) -> np.ndarray:
    """int64[N, C]: pixels of each class in each target of a split. Images are not read if the split has a
    method `target(index)`. skip_bad: a target that cannot be read counts as unlabelled."""
    pixels = np.zeros((len(split), num_classes), np.int64)
    for index in range(len(split)):
        try:
            labels = target_of(split, index)
        except DataError:  # reported by the loader when it reads the sample
            if not skip_bad:
                raise
            continue
        pixels[index] = np.bincount(labels[labels != ignore_index].ravel(), minlength=num_classes)
    return pixels
