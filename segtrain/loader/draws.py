"""How often each training sample is drawn: repeat factors, and draws by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from segtrain.errors import ConfigError
from segtrain.settings import Sampler


@dataclass(frozen=True)
class Draws:
    """repeats: float64[N] from 1, how often an epoch holds each sample on average; None: once. class_share:
    share of the samples that are drawn by class. class_probabilities: float64[C], the probability that such a
    draw picks each class. holders: for each class, the indices of the samples that hold it."""

    repeats: np.ndarray | None = None
    class_share: float = 0.0
    class_probabilities: np.ndarray | None = None
    holders: tuple[np.ndarray, ...] = ()

    def by_class(self, rng: np.random.Generator) -> tuple[int, int]:
        """(index, class): a class, then one of the samples that hold it."""
        chosen = int(rng.choice(len(self.class_probabilities), p=self.class_probabilities))
        return int(rng.choice(self.holders[chosen])), chosen


UNIFORM = Draws()
"""Every sample once an epoch."""


def draws_of(settings: Sampler, class_pixels: Callable[[], np.ndarray]) -> Draws:
    """The draws of the section `sampler`.

    class_pixels: () -> int64[N, C], pixels of each class in each sample of the training split; called only if
    the settings depend on them. ConfigError if no sample holds any class.
    """
    if not settings.class_share and not settings.repeat_threshold:
        return UNIFORM
    pixels = class_pixels()
    present = pixels > 0  # N×C
    if not present.any():
        raise ConfigError(
            "sampler.class_share and sampler.repeat_threshold draw by class, and no sample of the training "
            "split has a label; set both to 0"
        )
    totals = pixels.sum(axis=0)
    weights = np.where(totals > 0, 1.0, 0.0)
    if settings.class_draw == "sqrt_inverse":
        weights /= np.sqrt(np.maximum(totals, 1))
    return Draws(
        repeats=repeat_factors(present, settings.repeat_threshold) if settings.repeat_threshold else None,
        class_share=settings.class_share,
        class_probabilities=weights / weights.sum(),
        holders=tuple(np.flatnonzero(column) for column in present.T),
    )


def repeat_factors(present: np.ndarray, threshold: float) -> np.ndarray:
    """float64[N]: r = max(1, max over the classes c of an image of sqrt(threshold / f(c))), where f(c) is the
    share of the images that hold class c (Gupta, Dollár & Girshick, LVIS, CVPR 2019, section 5.1).

    present: bool[N, C], whether an image holds a class.
    """
    share = present.mean(axis=0)  # C
    of_class = np.sqrt(threshold / np.maximum(share, 1 / len(present)))
    return np.maximum(1.0, np.where(present, of_class, 0.0).max(axis=1))
