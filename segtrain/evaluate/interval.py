"""Confidence intervals of scores: the bootstrap over groups of images (Efron & Tibshirani 1993, "An
introduction to the bootstrap", ch. 13: percentile intervals)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from segtrain.evaluate.loop import Scores
from segtrain.evaluate.units import Units
from segtrain.sample import Facts, PerClass
from segtrain.text import number

LEVEL = 0.95
NAME = "95 % interval"
SEED = 0
FEW_UNITS = 10
"""Below, intervals hold the truth clearly less often than 95 % of the time, and that is printed."""
MAX_WEIGHTS = 1 << 20
"""Weights in memory at once."""

Bounds = tuple[float, float] | None
"""The ends of an interval; None where no resample has a score."""


@dataclass(frozen=True)
class Intervals:
    """Intervals of scores.

    bounds: by the keys of the scores: of a `Number` its bounds, of a `PerClass` a tuple of them. resamples:
    their number. units: that were drawn. reason: why there are none; "" if there are. values: {key: the score
    of each resample, R or R×C float64, NaN where it has none}.
    """

    resamples: int
    units: Units
    bounds: Mapping[str, Bounds | tuple[Bounds, ...]] = field(default_factory=dict)
    reason: str = ""
    values: Mapping[str, np.ndarray] = field(default_factory=dict)

    def record(self, scores: Scores, facts: Facts) -> dict:
        """The entry in scores.json: [low, high] of each score, by class name where it is one per class."""
        plain = {"level": LEVEL, "resamples": self.resamples, "seed": SEED}
        plain |= {"unit": self.units.kind, "units": self.units.count}
        if self.reason:
            return {**plain, "reason": self.reason}
        for key, bounds in self.bounds.items():
            score = scores.numbers[key]
            if isinstance(score, PerClass):
                named = zip(score.groups or facts.classes, bounds, strict=True)
                plain[key] = {name: one and list(one) for name, one in named}
            else:
                plain[key] = bounds and list(bounds)
        return plain

    def line(self, scores: Scores, key: str) -> str:
        """The interval of the score `key` as a line for the terminal."""
        if self.reason or key not in self.bounds:
            return f"interval  none: {self.reason or f'{key} is not of a metric that gives intervals'}"
        score = scores.numbers[key]
        found = f"{number(score.value)}, {NAME} {between(self.bounds[key])}"
        return f"interval  {score.label} {found} ({how(self.resamples, self.units)})"


def how(resamples: int, units: Units) -> str:
    """How intervals were made, in words."""
    rough = f"; of fewer than {FEW_UNITS}, intervals come out too narrow" if units.count < FEW_UNITS else ""
    return f"{resamples} resamples of {units.words}{rough}"


def between(bounds: Bounds, digits: int = 4) -> str:
    """'0.4100 to 0.5200'; '-' for None."""
    return "-" if bounds is None else f"{number(bounds[0], digits)} to {number(bounds[1], digits)}"


def intervals(metrics: Mapping[str, object], scores: Scores, units: Units, resamples: int) -> Intervals:
    """Intervals of the scores that metrics can compute for resamples (`segtrain.metric`), from the kept
    counts of each image.

    A resample draws as many units as there are, with replacement, and takes all images of each. The draws
    depend on the units alone, so the values of two networks on one split are paired.
    """
    if resamples == 0:
        return Intervals(0, units, reason="bootstrap=0")
    if not scores.per_image:
        return Intervals(resamples, units, reason="no chosen metric gives intervals")
    if units.count < 2:
        of_group = "all images are of one group, which says nothing about others"
        reason = of_group if units.kind == "group" else "there are too few images"
        return Intervals(resamples, units, reason=reason)
    values: dict[str, np.ndarray] = {}
    of = np.asarray(units.of)[list(scores.positions)]
    for name, counts in scores.per_image.items():
        parts = metrics[name].parts(counts).numpy()  # N×P
        sums = np.zeros((units.count, parts.shape[1]))
        np.add.at(sums, of, parts)
        drawn = [metrics[name].resampled(weights @ sums) for weights in draws(units.count, resamples)]
        values |= {key: np.concatenate([one[key] for one in drawn]) for key in drawn[0]}
    bounds = {key: bounds_of(found) for key, found in values.items()}
    return Intervals(resamples, units, bounds, values=values)


def draws(num_units: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each resample holds each unit, n×U float64, a few resamples at a time."""
    rng = np.random.default_rng(SEED)
    at_once = max(1, MAX_WEIGHTS // num_units)
    for first in range(0, resamples, at_once):
        n = min(at_once, resamples - first)
        chosen = rng.integers(0, num_units, (n, num_units)) + num_units * np.arange(n)[:, None]
        yield np.bincount(chosen.ravel(), minlength=n * num_units).reshape(n, num_units).astype(np.float64)


def bounds_of(values: np.ndarray) -> Bounds | tuple[Bounds, ...]:
    """The interval of the values R, or a tuple of those of each column of R×C. Values that are NaN are left
    out."""
    if values.ndim == 2:
        return tuple(bounds_of(column) for column in values.T)
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high
