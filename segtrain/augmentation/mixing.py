"""Two images made one: a second sample placed over the first, soft edges, and joint object numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from segtrain.augmentation.objects import without_hidden
from segtrain.augmentation.warp import Nearest, Warp, warped
from segtrain.errors import ConfigError
from segtrain.sample import Sample, Target

OPAQUE = 1e-3
"""Opacities nearer to 0 or 1 are 0 or 1, so that pixels of one image alone are that image's, bit for bit."""
LAST_NUMBER = np.iinfo(np.uint16).max


def blended(
    below: np.ndarray, above: np.ndarray, alpha: np.ndarray, feather: float, free: np.ndarray | None = None
) -> np.ndarray:
    """h×w×K: `above` over `below`, by the opacity `alpha` (h×w, 0..1) blurred with a Gaussian of standard
    deviation `feather` pixels. free: h×w bool, where `below` may change; None: everywhere."""
    alpha = alpha.astype(np.float32)
    if feather > 0:
        alpha = cv2.GaussianBlur(alpha, (0, 0), feather, borderType=cv2.BORDER_REPLICATE)
    if free is not None:
        alpha = alpha * free
    result = np.where((alpha > 1 - OPAQUE)[..., None], above, below)  # h×w×K
    soft = (alpha > OPAQUE) & (alpha <= 1 - OPAQUE)
    weight = alpha[soft][:, None]  # N×1
    blend = weight * above[soft] + (1 - weight) * below[soft]  # N×K
    result[soft] = np.rint(blend) if below.dtype.kind == "u" else blend
    return result


@dataclass(frozen=True)
class Partner:
    """How a second sample is drawn and placed over the first one.

    scale: smallest and largest scale factor of its own pixels. flip: probability of a horizontal flip.
    """

    scale: tuple[float, float]
    flip: float
    ignore_index: int
    fill: tuple[float, ...] | None
    linear_target: bool

    def drawn(
        self, sample: Sample, rng: np.random.Generator, draw: Callable[[np.random.Generator], Sample]
    ) -> tuple[Sample, np.ndarray]:
        """Another sample, resampled to the size of `sample`, and H×W bool, the pixels that it covers."""
        other = draw(rng)
        size = sample.image.shape[:2]
        warp = Warp(
            output_size=size,
            scale=self.scale,
            log=False,
            rotate=0.0,
            flip=self.flip,
            class_centred=0.0,
            class_weights=None,
            ignore_index=self.ignore_index,
            fill=self.fill,
        )
        place = warp.placement(replace(other, focus=None), rng)
        outside = Nearest(place.matrix(), place, other.image.shape[:2]).outside
        covered = np.ones(size, bool) if outside is None else np.broadcast_to(~outside, size)
        return warped(other, place, self.ignore_index, self.fill, self.linear_target), covered


def mixed(sample: Sample, other: Sample, inside: np.ndarray, feather: float = 0.0) -> Sample:
    """`other` over `sample` where `inside` (H×W bool): image, with a soft edge, target and instances.

    Objects of `other` get numbers that `sample` does not use; objects of which the other image leaves too
    little visible are no objects any more.
    """
    target = sample.target
    if target is not None:
        target = np.where(inside if target.ndim == 2 else inside[..., None], other.target, target)
    image = blended(sample.image, other.image, inside, feather)
    return replace(sample, image=image, target=target, instances=_joint(sample, other, inside))


def _joint(sample: Sample, other: Sample, inside: np.ndarray) -> np.ndarray | None:
    """H×W uint16: the objects of both; None if `sample` has none."""
    if sample.instances is None:
        return None
    own = sample.instances
    added = np.zeros(int(inside.sum()), own.dtype) if other.instances is None else other.instances[inside]
    numbers = np.flatnonzero(np.bincount(added))
    numbers = numbers[numbers > 0]
    first = int(own.max(initial=0))
    if first + len(numbers) > LAST_NUMBER:
        used = np.unique(np.append(own, 0))
        own, first = np.searchsorted(used, own).astype(own.dtype), len(used) - 1
    joint = own.copy()
    joint[inside] = np.where(added > 0, np.searchsorted(numbers, added) + first + 1, 0)
    return without_hidden(joint, own, inside)


def checked_scale(scale: Sequence[float], where: str) -> tuple[float, float]:
    """ConfigError, which names `where`, if the smallest factor is not the first."""
    if scale[0] > scale[1]:
        raise ConfigError(f"{where}.scale is {list(scale)}; allowed: the smaller factor first")
    return tuple(scale)


def partner_of(
    where: str,
    scale: Sequence[float],
    flip: float,
    ignore_index: int,
    fill: Sequence[float] | None,
    target: Target,
) -> Partner:
    """The `Partner` of an operation's options. ConfigError as of `checked_scale`."""
    fill = None if fill is None else tuple(fill)
    return Partner(checked_scale(scale, where), flip, ignore_index, fill, target.interpolation == "linear")
