"""U-Net's weight map: pixels between two close objects weigh more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

REACH = 6
"""Standard deviations beyond which an object counts as absent: exp(-6²/2) of the weight is less than float32
can add to 1."""


@dataclass(frozen=True)
class Border:
    """B×H×W integer targets -> B×H×W float32 weights, on the targets' device:
    weight · exp(-(d1 + d2)² / (2·sigma²)) (Ronneberger et al. 2015, eq. 2).

    d1, d2: distances in pixels to the nearest and the second nearest object, 0 to the object that the pixel
    belongs to. Objects are the connected components of each of `classes`, by 4-connectivity, so that a
    diagonal line one pixel wide separates two objects; touching objects of one class are one. Computed on the
    CPU.
    """

    weight: float
    sigma: float
    classes: tuple[int, ...]

    def __call__(self, targets: Tensor) -> Tensor:
        maps = [self._of_one(target) for target in targets.cpu().numpy()]
        return torch.from_numpy(np.stack(maps)).to(targets.device)

    def _of_one(self, target: np.ndarray) -> np.ndarray:
        first, second = np.full((2, *target.shape), np.inf, np.float32)
        for spot, distance in self._distances(target):
            np.minimum(second[spot], np.maximum(first[spot], distance), out=second[spot])
            np.minimum(first[spot], distance, out=first[spot])
        return np.float32(self.weight) * np.exp(-((first + second) ** 2) / np.float32(2 * self.sigma**2))

    def _distances(self, target: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
        """For each object: the rows and columns within its reach, and their distances to it, float32."""
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
                spot = (
                    slice(max(0, top - reach), top + height + reach),
                    slice(max(0, left - reach), left + width + reach),
                )
                outside = (labels[spot] != number).astype(np.uint8)
                yield spot, cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
