"""The weight map of the U-Net paper: pixels between two close objects have larger weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

REACH = 6
"""Distance, in standard deviations, beyond which an object has no effect: exp(-6²/2) of the weight is less
than float32 can add to 1."""


@dataclass(frozen=True)
class Border:
    """B×H×W integer targets -> B×H×W float32 weights, on the targets' device:
    weight · exp(-(d1 + d2)² / (2·sigma²)) (Ronneberger et al. 2015, eq. 2).

    d1, d2: distances in pixels to the nearest and the second nearest object; 0 to the object that contains
    the pixel. The objects are the 4-connected components of each class in `classes`, so a diagonal line one
    pixel wide separates two objects; touching objects of one class count as one. Computed on the CPU.
    """

    weight: float
    sigma: float
    classes: tuple[int, ...]

    def __call__(self, targets: Tensor) -> Tensor:
        maps = [self._of_one(target) for target in targets.cpu().numpy()]
        return torch.from_numpy(np.stack(maps)).to(targets.device)

    def _of_one(self, target: np.ndarray) -> np.ndarray:
        first, second = np.full((2, *target.shape), np.inf, np.float32)
        for region, distance in self._distances(target):
            np.minimum(second[region], np.maximum(first[region], distance), out=second[region])
            np.minimum(first[region], distance, out=first[region])
        return np.float32(self.weight) * np.exp(-((first + second) ** 2) / np.float32(2 * self.sigma**2))

    def _distances(self, target: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
        """For each object: the region (rows, columns) within its reach, and the distance of each pixel of the
        region to the object, h×w float32."""
        reach = math.ceil(REACH * self.sigma)
        for index in self.classes:
            inside = (target == index).astype(np.uint8)
            count, labels, boxes, _ = (
                cv2.connectedComponentsWithStats(inside, connectivity=4)
                if inside.any()
                else (0, None, None, None)
            )
            for number in range(1, count):
                left, top, width, height = (int(value) for value in boxes[number][:4])
                region = (
                    slice(max(0, top - reach), top + height + reach),
                    slice(max(0, left - reach), left + width + reach),
                )
                outside = (labels[region] != number).astype(np.uint8)
                yield region, cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
