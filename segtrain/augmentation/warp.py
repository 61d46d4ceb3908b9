"""Scale, rotation, flip and crop as one affine warp.

All parameters are drawn first; then only the window of the source that the crop covers is resampled, once.

Coordinates are continuous: pixel i covers [i, i + 1), its centre is i + 0.5. Targets and instances are
resampled nearest: an output pixel takes the value of the source pixel that contains its centre. Images are
resampled bilinear; below a scale of BLUR_BELOW the window is low-pass filtered first (anti-aliasing). Output
pixels outside the source are `fill` in the image and ignored in the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np

from segtrain.augmentation.class_pixel import ClassDraw, class_draw_weights, pixel_of_a_class
from segtrain.errors import ConfigError
from segtrain.options import PROBABILITY, SIDE_PX, between
from segtrain.sample import CLASSES, IGNORE, Sample, Target, no_label

SMALLEST, LARGEST = 0.01, 100  # scales; below, the low-pass filter is wider than OpenCV allows
SCALE = between(SMALLEST, LARGEST)
TRIES = 10  # crops drawn until one keeps to max_class_share; the last one is taken
BLUR_BELOW = 0.7  # scale; between it and 1, bilinear interpolation reads nearly every source pixel anyway


@dataclass(frozen=True)
class Placement:
    """Position of the output window in the source image.

    height, width: of the output in pixels. scale: output pixels per source pixel. degrees: counter-clockwise
    rotation of the content. flipped: mirrored left to right, after the rotation. centre: (x, y) in the
    source that falls on the output's centre.
    """

    height: int
    width: int
    scale: float
    degrees: float
    flipped: bool
    centre: tuple[float, float]

    def matrix(self) -> np.ndarray:
        """2×3 affine matrix from (x, y, 1) in the output to (x, y) in the source, continuous coordinates."""
        angle = math.radians(self.degrees)
        cos, sin = (round(f, 15) / self.scale for f in (math.cos(angle), math.sin(angle)))
        turn = np.array([[cos, -sin], [sin, cos]])
        if self.flipped:
            turn[:, 0] = -turn[:, 0]
        offset = np.array(self.centre) - turn @ (self.width / 2, self.height / 2)
        return np.column_stack([turn, offset])


def warp(
    size: Annotated[int, SIDE_PX] | tuple[Annotated[int, SIDE_PX], Annotated[int, SIDE_PX]] | None = None,
    scale: tuple[Annotated[float, SCALE], Annotated[float, SCALE]] = (0.5, 2.0),
    scale_law: Literal["uniform", "log"] = "uniform",
    rotate: Annotated[float, between(0, 180)] = 0.0,
    flip: Annotated[float, PROBABILITY] = 0.5,
    class_centred: Annotated[float, PROBABILITY] = 0.0,
    class_draw: ClassDraw = "uniform",
    max_class_share: Annotated[float, between(0.01, 1)] = 1.0,
    ignore_index: int = IGNORE,
    fill: Sequence[float] | None = None,
    class_frequency: Callable | None = None,
    target: Target = CLASSES,
) -> Warp:
    """Random scale, rotation, flip and crop in one warp; the crop can be drawn around a rare class.

    The crop lies inside the image where it can. A class-centred crop draws a class among those present, one
    of its pixels, and puts that pixel anywhere in the crop with equal probability (then moves the crop inside
    the image). Labels are interpolated nearest, images bilinear, with a low-pass filter below a scale of 0.7.
    Pixels from outside the image have the mean colour and no label.

    Options:
        size: crop size in pixels, one side or [height, width]; null: the size of the image
        scale: smallest and largest scale factor
        scale_law: distribution of the scale factor, uniform or log-uniform
        rotate: largest rotation in degrees, in either direction
        flip: probability of a horizontal flip
        class_centred: probability that the crop is drawn around a pixel of a drawn class
        class_draw: how that class is drawn among those in the image: uniform, or sqrt_inverse with
            probability proportional to 1/sqrt of its pixels in the training split
        max_class_share: largest share of one class among the labelled pixels of a crop (cat_max_ratio); up to
            10 crops of an image are drawn to keep to it; 1: any share
    """
    if scale[0] > scale[1]:
        raise ConfigError(f"augmentation.warp.scale is {list(scale)}; allowed: the smaller factor first")
    if class_centred > 0 and not target.classes:
        raise ConfigError("augmentation.warp.class_centred draws classes, and the task has none; use 0")
    if max_class_share < 1 and not target.classes:
        raise ConfigError("augmentation.warp.max_class_share counts classes, and the task has none; use 1")
    weights = class_draw_weights(class_draw, class_frequency) if class_centred > 0 else None
    size = (size, size) if isinstance(size, int) else size
    return Warp(
        size,
        tuple(scale),
        scale_law == "log",
        rotate,
        flip,
        class_centred,
        weights,
        ignore_index,
        None if fill is None else tuple(fill),
        target.interpolation == "linear",
        max_class_share,
    )


@dataclass(frozen=True)
class Warp:
    """The operation made by `warp`."""

    needs_instances: ClassVar[bool] = False
    output_size: tuple[int, int] | None
    scale: tuple[float, float]
    log: bool
    rotate: float
    flip: float
    class_centred: float
    class_weights: np.ndarray | None
    ignore_index: int
    fill: tuple[float, ...] | None
    linear_target: bool = False
    max_class_share: float = 1.0

    def __call__(self, sample: Sample, rng: np.random.Generator, draw: Callable | None = None) -> Sample:
        return warped(sample, self.placement(sample, rng), self.ignore_index, self.fill, self.linear_target)

    def placement(self, sample: Sample, rng: np.random.Generator) -> Placement:
        """A random placement for this sample."""
        height, width = self.output_size or sample.image.shape[:2]
        low, high = self.scale
        scale = math.exp(rng.uniform(math.log(low), math.log(high))) if self.log else rng.uniform(low, high)
        degrees = rng.uniform(-self.rotate, self.rotate)
        flipped = bool(rng.random() < self.flip)
        whole = Placement(height, width, scale, degrees, flipped, (0.0, 0.0))
        centred = rng.random() < self.class_centred or sample.focus is not None
        for _ in range(TRIES):
            pixel = None
            if centred and sample.target is not None:
                pixel = pixel_of_a_class(
                    sample.target, self.class_weights, self.ignore_index, rng, sample.focus
                )
            place = replace(whole, centre=_centre(whole, sample.image.shape[:2], pixel, rng))
            if self.max_class_share == 1 or sample.target is None or self._is_mixed(sample.target, place):
                break
        return place

    def _is_mixed(self, target: np.ndarray, place: Placement) -> bool:
        """Whether the crop at `place` has labelled pixels, and keeps to max_class_share."""
        labels = Nearest(place.matrix(), place, target.shape).read(target, self.ignore_index)
        counts = np.bincount(labels[labels != self.ignore_index], minlength=1)
        return 0 < counts.max() <= self.max_class_share * counts.sum()


def _centre(
    place: Placement, source: tuple[int, int], pixel, rng: np.random.Generator
) -> tuple[float, float]:
    """(x, y) of the crop's centre in the source: uniform over the positions that keep the crop inside the
    image, or, with `pixel` (row, column), such that the pixel falls anywhere in the crop with equal
    probability."""
    turn = place.matrix()[:, :2]
    # Width and height of the window's bounding box in the source.
    spans = np.abs(turn) @ (place.width, place.height)
    u = rng.random(2)
    if pixel is None:
        wish = [None, None]
    else:
        wish = np.array(pixel[::-1]) + 0.5 - turn @ ((u - 0.5) * (place.width, place.height))
    centre = []
    for axis, length in enumerate((source[1], source[0])):
        low, high = sorted((spans[axis] / 2, length - spans[axis] / 2))
        middle = low + u[axis] * (high - low) if pixel is None else min(max(wish[axis], low), high)
        centre.append(_on_grid(middle, spans[axis], place) if place.degrees == 0 else middle)
    return tuple(centre)


def _on_grid(middle: float, span: float, place: Placement) -> float:
    """The centre moved by less than one output pixel, so that the window begins on a whole pixel of the
    scaled image."""
    return round((middle - span / 2) * place.scale) / place.scale + span / 2


def warped(
    sample: Sample,
    place: Placement,
    ignore_index: int = IGNORE,
    fill: Sequence[float] | None = None,
    linear_target: bool = False,
) -> Sample:
    """The sample resampled at `place`; image, target and instances at the same positions. fill: K values,
    0..255. linear_target: bilinear interpolation of the target."""
    matrix = place.matrix()
    nearest = Nearest(matrix, place, sample.image.shape[:2])
    fill = (
        np.zeros(sample.image.shape[2])
        if fill is None
        else on_scale(np.asarray(fill, np.float64), sample.image.dtype)
    )
    exact = place.scale == 1 and place.degrees % 90 == 0 and np.allclose(matrix[:, 2] % 1, 0)

    def read_target(target: np.ndarray) -> np.ndarray:
        unknown = no_label(target.dtype, ignore_index)
        if exact or not linear_target:
            return nearest.read(target, unknown)
        read = bilinear_known(target, lambda values: _bilinear(values, matrix, place))
        return nearest.fill_outside(read, unknown)

    return replace(
        sample,
        image=nearest.read(sample.image, fill)
        if exact
        else nearest.fill_outside(_bilinear(sample.image, matrix, place), fill),
        target=None if sample.target is None else read_target(sample.target),
        instances=None if sample.instances is None else nearest.read(sample.instances, 0),
    )


def bilinear_known(target: np.ndarray, bilinear: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """H×W or H×W×T float, resampled by `bilinear` (of H×W×T float32); NaN wherever an unknown (NaN) value
    contributes."""
    values = target[..., None] if target.ndim == 2 else target  # H×W×T
    known = np.isfinite(values)  # H×W×T
    read = bilinear(np.where(known, values, 0).astype(np.float32))
    share = bilinear(known.astype(np.float32))
    read = np.where(share > 1 - 1e-4, read, np.nan).astype(target.dtype)
    return read[..., 0] if target.ndim == 2 else read


def on_scale(fill: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`fill` (0..255) on the scale of the image's dtype; float images: 0..1."""
    return (fill * {"uint8": 1, "uint16": 257}[dtype.name]).round() if dtype.kind == "u" else fill / 255


class Nearest:
    """Nearest-neighbour lookup: row and column of the source pixel that contains each output pixel's
    centre, clipped to the source; rows and columns broadcast to H×W."""

    def __init__(self, matrix: np.ndarray, place: Placement, source: tuple[int, int]):
        x, y = np.arange(place.width)[None] + 0.5, np.arange(place.height)[:, None] + 0.5  # 1×W, H×1
        self.upright = matrix[0, 1] == 0 and matrix[1, 0] == 0
        columns = (
            matrix[0, 0] * x + matrix[0, 2]
            if self.upright
            else matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
        )
        rows = (
            matrix[1, 1] * y + matrix[1, 2]
            if self.upright
            else matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
        )
        # The small term decides positions that are whole numbers up to rounding errors.
        columns, rows = (np.floor(axis + 1e-9).astype(np.intp) for axis in (columns, rows))
        wrong_rows, wrong_columns = (
            (axis < 0) | (axis >= side) for axis, side in zip((rows, columns), source, strict=True)
        )
        # None if all pixels are inside, which is told without the H×W array.
        self.outside = wrong_rows | wrong_columns if wrong_rows.any() or wrong_columns.any() else None
        self.rows, self.columns = rows.clip(0, source[0] - 1), columns.clip(0, source[1] - 1)

    def read(self, array: np.ndarray, fill) -> np.ndarray:
        """The array resampled (a copy), `fill` outside the source."""
        if self.upright:  # one axis after the other is five times as fast
            first, last = self.columns.min(), self.columns.max()
            found = array[self.rows[:, 0], first : last + 1]  # H×w×…
            found = found.take(self.columns[0] - first, axis=1)  # H×W×…
        else:
            found = array[self.rows, self.columns]
        return self.fill_outside(found, fill)

    def fill_outside(self, array: np.ndarray, fill) -> np.ndarray:
        if self.outside is not None:
            array[self.outside] = fill
        return array


def _bilinear(image: np.ndarray, matrix: np.ndarray, place: Placement) -> np.ndarray:
    """H×W×K resampled bilinear, with border pixels replicated."""
    # 2 px: bilinear interpolation reads one beyond the window.
    sigma = 0.5 * math.sqrt(1 / place.scale**2 - 1) if place.scale < BLUR_BELOW else 0.0
    image, matrix = _window(image, matrix, place, math.ceil(3 * sigma) + 2)
    if sigma:
        image = _blurred(image, sigma)
    index_matrix = matrix.copy()
    index_matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # in cv2 the centre of pixel 0 is 0, not 0.5
    done = []
    for first in range(0, image.shape[2], 4):  # warpAffine takes up to four channels
        part = np.ascontiguousarray(image[..., first : first + 4])  # h×w×(up to 4)
        done.append(_affine(part, index_matrix, place))
    return done[0] if len(done) == 1 else np.concatenate(done, axis=2)


def _affine(image: np.ndarray, matrix: np.ndarray, place: Placement) -> np.ndarray:
    """cv2.warpAffine of an image of up to four channels."""
    num_channels = image.shape[2]
    if num_channels == 3:  # with four, warpAffine takes a third of the time
        image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    size, flags = (place.width, place.height), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    if num_channels == 3:
        return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)
    return warped.reshape(place.height, place.width, -1)  # cv2 drops the axis of a single channel


def _window(
    image: np.ndarray, matrix: np.ndarray, place: Placement, margin: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of the image that the warp reads, `margin` pixels wider on each side, and the matrix relative
    to that part."""
    corners = matrix @ np.array(
        [[0, place.width, 0, place.width], [0, 0, place.height, place.height], [1, 1, 1, 1]]
    )
    height, width = image.shape[:2]
    left, top = (
        int(np.clip(math.floor(low) - margin, 0, last))
        for low, last in zip(corners.min(1), (width - 1, height - 1), strict=True)
    )
    right, bottom = (
        int(np.clip(math.ceil(high) + margin, 1, end))
        for high, end in zip(corners.max(1), (width, height), strict=True)
    )
    moved = matrix.copy()
    moved[:, 2] -= (left, top)
    return image[top : max(bottom, top + 1), left : max(right, left + 1)], moved  # h×w×K


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """The image low-pass filtered for downscaling to the scale s.

    A Gaussian of variance sigma² = (1/s² - 1) / 4 source pixels² widens a source pixel (standard deviation
    about 0.5) to the extent of an output pixel.
    """
    radius = math.ceil(3 * sigma)
    side = 2 * radius + 1
    blurred = cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    return blurred.reshape(*image.shape)
