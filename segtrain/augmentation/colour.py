"""Colour jitter: brightness, contrast, saturation and hue as one matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import cv2
import numpy as np

from segtrain.options import PROBABILITY, between
from segtrain.sample import Sample

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def colour(
    brightness: Annotated[float, between(0, 1)] = 0.3,
    contrast: Annotated[float, between(0, 1)] = 0.3,
    saturation: Annotated[float, between(0, 1)] = 0.3,
    hue: Annotated[float, between(0, 180)] = 0.0,
    probability: Annotated[float, PROBABILITY] = 1.0,
) -> Colour:
    """Colour jitter: random brightness, contrast, saturation and hue of RGB images, as one 3x4 matrix.

    Each factor is drawn uniformly from [1 - x, 1 + x], where x is the option's value. Contrast scales about
    the image's mean grey, saturation about each pixel's own grey (BT.601 luma); hue rotates colours about
    the grey axis. Only 8-bit RGB images are changed.

    Options:
        brightness: largest relative change of brightness
        contrast: largest relative change of contrast
        saturation: largest relative change of saturation
        hue: largest rotation of the hue in degrees
        probability: probability that an image is changed at all
    """
    return Colour(brightness, contrast, saturation, hue, probability)


@dataclass(frozen=True)
class Colour:
    """The operation made by `colour`."""

    output_size: ClassVar[None] = None
    needs_instances: ClassVar[bool] = False
    brightness: float
    contrast: float
    saturation: float
    hue: float
    probability: float

    def __call__(self, sample: Sample, rng: np.random.Generator, draw: Callable | None = None) -> Sample:
        # All numbers are always drawn, so that no option changes the random numbers of later operations.
        chance, *signs = rng.uniform(-1, 1, 5)
        image = sample.image
        if (
            (chance + 1) / 2 >= self.probability
            or image.dtype != np.uint8
            or image.ndim != 3
            or image.shape[2] != 3
        ):
            return sample
        factors = [
            1 + sign * span
            for sign, span in zip(signs, (self.brightness, self.contrast, self.saturation), strict=False)
        ]
        grey = float(LUMA @ cv2.mean(image)[:3])
        matrix = colour_matrix(*factors, signs[3] * self.hue, grey)
        return replace(sample, image=cv2.transform(image, matrix))


def colour_matrix(
    brightness: float, contrast: float, saturation: float, hue: float, mean_grey: float
) -> np.ndarray:
    """3×4 matrix that maps (R, G, B, 1) in 0..255 to RGB: brightness, then contrast about the mean grey
    of the brightened image, then saturation, then hue (degrees)."""
    keep_grey = np.tile(LUMA, (3, 1))
    saturate = saturation * np.eye(3) + (1 - saturation) * keep_grey
    turn = _about_grey_axis(math.radians(hue)) @ saturate
    offset = turn @ np.full(3, (1 - contrast) * brightness * mean_grey)
    return np.column_stack([turn * (brightness * contrast), offset])


def _about_grey_axis(angle: float) -> np.ndarray:
    """Rotation about (1, 1, 1): Rodrigues' formula."""
    cos, sin = math.cos(angle), math.sin(angle)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return cos * np.eye(3) + sin * cross + (1 - cos) / 3 * np.ones((3, 3))
