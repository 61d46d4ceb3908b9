"""Fills the holes that objects leave: colours by inpainting, labels from the nearest background."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from segtrain.augmentation.objects import nearest_pixel

RADIUS_PX = 5
"""Neighbourhood from which a pixel is inpainted (Telea, An image inpainting technique based on the fast
marching method, 2004)."""
MARGIN_PX = 16
"""Background that is looked at around a hole."""
MAX_PX = 10_000
"""Pixels inpainted at full resolution, some 30 ms. Larger holes are inpainted at a lower resolution, and at
the full one only along their border."""
BAND_PX = 6
"""Width of that border."""


def window_of(box: Sequence[int], source: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns around the box (top, left, bottom, right) of a hole, MARGIN_PX wider than the hole on
    each side, and as many times wider as it takes for a pixel of `source` (H×W bool) to be among them; the
    whole image if there is none."""
    top, left, bottom, right = box
    margin = MARGIN_PX
    while True:
        rows = slice(max(0, top - margin), bottom + margin)
        columns = slice(max(0, left - margin), right + margin)
        if source[rows, columns].any() or margin > max(source.shape):
            return rows, columns
        margin *= 2


def fill(image: np.ndarray, hole: np.ndarray, source: np.ndarray) -> None:
    """Replaces the pixels of `image` (h×w×K) in `hole` by an inpainting from the pixels of `source` or, if
    there are none, from all outside the hole; in place. hole, source: h×w bool, disjoint."""
    if hole.all():
        return
    unknown = ~source if source.any() else hole
    image[hole] = _inpainted(image, unknown, hole)[hole]


def labels_of(target: np.ndarray, hole: np.ndarray, source: np.ndarray) -> np.ndarray | None:
    """N×… values of the target at the pixel of `source` nearest to each of the N pixels of the hole; None if
    `source` has no pixel."""
    if not source.any():
        return None
    return target.reshape(-1, *target.shape[2:])[nearest_pixel(source)[hole]]


def _inpainted(image: np.ndarray, unknown: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """h×w×K: the image inpainted where `unknown`, at least where it is `wanted` too."""
    if unknown.sum() <= MAX_PX:
        return _telea(image, unknown)
    shrunk, blank = _shrunk(image, unknown, math.sqrt(MAX_PX / unknown.sum()))
    height, width = unknown.shape
    coarse = cv2.resize(_telea(shrunk, blank), (width, height), interpolation=cv2.INTER_LINEAR)
    coarse = np.where(unknown[..., None], coarse.reshape(image.shape), image)
    # Along the border at full resolution, so that no seam shows.
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * BAND_PX + 1, 2 * BAND_PX + 1))
    near = cv2.dilate((~unknown).astype(np.uint8), kernel) > 0
    return _telea(coarse, near & unknown & wanted)


def _shrunk(image: np.ndarray, unknown: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """h×w×K of the image scaled down, each pixel the mean of its known ones, and h×w bool where there is
    none known."""
    height, width = (max(2, round(side * scale)) for side in unknown.shape)
    known = (~unknown).astype(np.float32)
    share = cv2.resize(known, (width, height), interpolation=cv2.INTER_AREA)  # h×w
    sums = cv2.resize(
        image.astype(np.float32) * known[..., None], (width, height), interpolation=cv2.INTER_AREA
    )
    means = sums.reshape(height, width, -1) / np.maximum(share, 1e-6)[..., None]
    blank = share < 0.25
    return means.astype(image.dtype), np.zeros_like(blank) if blank.all() else blank


def _telea(image: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """cv2.inpaint of images of any number of channels and type."""
    mask = unknown.astype(np.uint8)
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return cv2.inpaint(np.ascontiguousarray(image), mask, RADIUS_PX, cv2.INPAINT_TELEA)
    return np.stack([_telea_channel(image[..., k], mask) for k in range(image.shape[2])], axis=2)


def _telea_channel(channel: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """h×w of any type. OpenCV adds up to 1.4 to what it inpaints, as if for 0..255: float values are
    stretched before."""
    if channel.dtype.kind == "u":
        return cv2.inpaint(np.ascontiguousarray(channel), mask, RADIUS_PX, cv2.INPAINT_TELEA)
    known = channel[mask == 0]
    low, stretch = known.min(), 65535 / max(np.ptp(known), 1e-12)
    stretched = np.where(mask, 0, (channel - low) * stretch).astype(np.float32)
    found = cv2.inpaint(stretched, mask, RADIUS_PX, cv2.INPAINT_TELEA) / stretch + low
    return np.where(mask, found.clip(low, known.max()), channel).astype(channel.dtype)
