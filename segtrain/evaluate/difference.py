"""What a comparison of runs may conclude: paired differences with their intervals, differing protocols, and
the spread over seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from segtrain.evaluate.interval import NAME, Bounds, Intervals, between, bounds_of, how
from segtrain.text import flatten, number, show

OF_THE_NETWORK = ("output_stride",)
"""Entries of a protocol that belong to the network: runs that differ in them are compared all the same."""
OF_THE_SPLIT = (
    "images",
    "pixels",
    "only_class",
    "labels_without_pixels",
    "seconds",
    "split",
    "checkpoint",
)
"""Entries that a validation during training need not share with a comparison, and the time."""
INDIFFERENT = ("seed", "name", "resume", "dry_run", "device", "threads")
"""Keys of a training config that runs of several seeds need not share."""


class Difference(NamedTuple):
    """How far a run is ahead of another one, over the same images. value: by how much its score is better.
    bounds: its interval, from resamples in which both runs have the same images; None if there is none.
    reason: why there is no difference to take; "" if there is one."""

    first: str
    second: str
    value: float | None
    bounds: Bounds
    reason: str = ""

    def distinguishable(self) -> bool | None:
        """Whether the interval leaves out 0; None without an interval."""
        return None if self.bounds is None else not self.bounds[0] <= 0 <= self.bounds[1]

    def record(self) -> dict:
        plain = {"first": self.first, "second": self.second, "difference": self.value}
        plain |= {"interval": self.bounds and list(self.bounds), "distinguishable": self.distinguishable()}
        return {**plain, **({"reason": self.reason} if self.reason else {})}

    def line(self, label: str) -> str:
        """In words. label: of the score."""
        if self.reason:
            return f"{self.first} and {self.second} are not compared: {self.reason}"
        found = f"{label} {number(self.value)}"
        if self.bounds is None:
            return f"{self.first} is ahead of {self.second} by {found}, without an interval"
        inside = f"{NAME} {between(self.bounds)}"
        if self.distinguishable():
            return f"{self.first} is better than {self.second} by {found} ({inside})"
        return f"{self.first} and {self.second} are not distinguishable: difference of {found} ({inside})"


def difference(
    runs: tuple[str, str],
    values: tuple[float | None, float | None],
    found: tuple[Intervals, Intervals],
    score: str,
    lower_is_better: bool,
    reason: str = "",
) -> Difference:
    """The difference of two runs, the better one first. values: their scores. found: their intervals, made
    with the same units. reason: why they must not be compared."""
    if reason or None in values:
        return Difference(*runs, None, None, reason or "one of them has no score")
    sign = -1 if lower_is_better else 1
    bounds = None
    if all(score in one.values for one in found):
        bounds = bounds_of(sign * (found[0].values[score] - found[1].values[score]))
    return Difference(*runs, sign * (values[0] - values[1]), bounds)


def lines(differences: Sequence[Difference], label: str, found: Intervals) -> list[str]:
    """The differences in words, and how their intervals were made or why there are none."""
    if not differences:
        return []
    made = f"no interval: {found.reason}" if found.reason else how(found.resamples, found.units)
    return [*(one.line(label) for one in differences), f"          paired, {made}"]


def protocol_difference(one: Mapping, other: Mapping, ignored: Sequence[str] = ("seconds",)) -> str:
    """The entries in which two protocols differ: 'absent (union, gt)'; "" if they are alike. Entries that
    only one of them has do not count, because earlier versions wrote fewer."""
    one, other = (json.loads(json.dumps(plain)) for plain in (one, other))  # tuples as lists, as saved
    keys = [key for key in one if key in other and key not in (*ignored, *OF_THE_NETWORK)]
    return ", ".join(
        f"{key} ({_shown(one[key])}, {_shown(other[key])})" for key in keys if one[key] != other[key]
    )


def _shown(value) -> str:
    return show(value) or "''"


def same_but_seed(configs: Mapping[str, Mapping]) -> list[list[str]]:
    """The runs whose training configs are equal but for seed, name and machine, in lists of two and more.
    configs: by run."""
    alike: dict[str, list[str]] = {}
    for run, config in configs.items():
        flat = {
            key: value
            for key, value in flatten(config).items()
            if key not in INDIFFERENT and not key.endswith(".workers")
        }
        alike.setdefault(json.dumps(flat, sort_keys=True, default=str), []).append(run)
    seeds = {run: config.get("seed") for run, config in configs.items()}
    return [runs for runs in alike.values() if len({seeds[run] for run in runs}) > 1]


class Spread(NamedTuple):
    """Mean and sample standard deviation of a score over seeds; None for a run without a score."""

    mean: float | None
    deviation: float | None

    @staticmethod
    def of(values: Sequence[float | None]) -> Spread:
        if None in values:
            return Spread(None, None)
        return Spread(statistics.fmean(values), statistics.stdev(values))

    def __str__(self) -> str:
        return "-" if self.mean is None else f"{number(self.mean)} ± {number(self.deviation)}"
