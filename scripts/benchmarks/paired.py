"""Two sides measured in turns, and what the pairs say."""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch


class Left(Exception):
    """A row that cannot be measured here; the text says why."""


class Enough(Exception):
    """Raised inside the loop under test when all pairs are measured."""


@dataclass(frozen=True)
class Goal:
    """values: (ours, theirs), seconds of each pair -> the numbers that are judged. form: how one of them is
    printed.

    The bound of the 95 % interval that lies nearer to the limit has to keep it.
    """

    text: str
    values: Callable[[np.ndarray, np.ndarray], np.ndarray]
    limit: float
    at_least: bool
    form: str

    def reached(self, low: float, high: float) -> bool:
        return low >= self.limit if self.at_least else high <= self.limit


def faster(times: float) -> Goal:
    return Goal(f">= {times:g}x faster", lambda ours, theirs: theirs / ours, times, True, "{:.1f}x faster")


def share(limit: float) -> Goal:
    return Goal(
        f"<= {limit:g}x the time", lambda ours, theirs: ours / theirs, limit, False, "{:.3f}x the time"
    )


def extra_ms(limit: float) -> Goal:
    return Goal(
        f"<= {limit:g} ms more", lambda ours, theirs: 1e3 * (ours - theirs), limit, False, "{:.3f} ms more"
    )


def extra_percent(limit: float) -> Goal:
    return Goal(
        f"<= {limit:g} % more", lambda ours, theirs: 100 * (ours / theirs - 1), limit, False, "{:.2f} % more"
    )


def seconds(limit: float) -> Goal:
    return Goal(f"<= {limit:g} s", lambda ours, theirs: ours, limit, False, "{:.3f} s")


@dataclass(frozen=True)
class Result:
    """ours, theirs: seconds of each pair (of one call or step), or with seconds=False other numbers, of which
    only the goal's is shown. peer: what ours is held against, with its version."""

    peer: str
    ours: list[float]
    theirs: list[float]
    goal: Goal
    seconds: bool = True

    def judged(self) -> tuple[float, float, float]:
        """Median and 95 % interval of the goal's number over the pairs."""
        return median_interval(self.goal.values(np.array(self.ours), np.array(self.theirs)))

    def reached(self) -> bool:
        return self.goal.reached(*self.judged()[1:])

    def plain(self) -> dict:
        """All of it as JSON values."""
        median, low, high = self.judged()
        sides = {"ours_s": self.ours, "theirs_s": self.theirs} if self.seconds else {"ours": self.ours}
        numbers = {**sides, "median": median, "low": low, "high": high}
        return {"peer": self.peer, "goal": self.goal.text, "reached": self.reached(), **numbers}


def median_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """The median and its interval between two order statistics, which assumes nothing about the distribution.

    Value k of n, counted from 1, lies above the true median with the probability that at most k - 1 of n fair
    coins show heads. Below six values the interval is the range, at a lower level.
    """
    ordered, n = np.sort(values), len(values)
    below, rank = 0.0, 0
    while rank < (n - 1) // 2 and (below + math.comb(n, rank)) / 2**n <= (1 - level) / 2:
        below += math.comb(n, rank)
        rank += 1
    first = max(rank - 1, 0)
    return float(np.median(ordered)), float(ordered[first]), float(ordered[n - 1 - first])


def alternating(
    ours: Callable, theirs: Callable, pairs: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[float], list[float]]:
    """Seconds of each call, the sides in turns and in changing order, after one call of each that is not
    counted."""
    times: dict[Callable, list[float]] = {ours: [], theirs: []}
    ours(), theirs()
    for pair in range(pairs):
        for side in (ours, theirs) if pair % 2 == 0 else (theirs, ours):
            times[side].append(timed(side, clock))
    return times[ours], times[theirs]


def timed(run: Callable, clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    run()
    return clock() - start


class Turns:
    """The batches of a training loop, handed to it in blocks of `steps`; between its blocks the peer runs as
    many of its own steps.

    The loop's clock stands still meanwhile. Iterating ends with `Enough`. ours, theirs: seconds a step, a
    number for each pair; the first `skipped` pairs are not kept. before: called with "ours" or "theirs"
    before each block, outside of both clocks.
    """

    def __init__(
        self,
        batches: Iterable,
        peer_step: Callable,
        steps: int,
        pairs: int,
        skipped: int = 1,
        before: Callable | None = None,
    ):
        self.batches, self.peer_step, self.steps, self.pairs, self.skipped = (
            iter(batches),
            peer_step,
            steps,
            pairs,
            skipped,
        )
        self.before = before or (lambda side: None)
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def __iter__(self) -> Iterator:
        for pair in range(self.skipped + self.pairs):
            if pair % 2:
                self._peer()
            self.before("ours")
            start = time.perf_counter()
            for _ in range(self.steps):
                yield next(self.batches)
            # The loop asks for its next batch only when the step of the last one is through.
            self.ours.append((time.perf_counter() - start) / self.steps)
            if not pair % 2:
                self._peer()
        del self.ours[: self.skipped], self.theirs[: self.skipped]
        raise Enough

    def _peer(self) -> None:
        self.before("theirs")
        self.theirs.append(timed(lambda: [self.peer_step() for _ in range(self.steps)]) / self.steps)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch's number of threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def version(package: str) -> str:
    """'package 1.2.3'; `Left` if it is not installed."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError as error:
        raise Left(f"{package} is not installed; make install") from error
