"""The order of training samples: position -> index.

Positions count samples over all epochs, without end. Each epoch has its own permutation, a function of (seed,
epoch) alone, and a draw by class is a function of (seed, position), so neither the number of workers nor a
resume changes which sample stands at a position.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from segtrain.loader.draws import UNIFORM, Draws

ORDER, AUGMENT, SUBSTITUTE, BY_CLASS = 1, 2, 3, 4
"""Random streams derived from one seed: permutations, augmentation, substitutes of unreadable samples, draws
by class."""


class Drawn(NamedTuple):
    """index: of a sample. focus: the class for which the sample was drawn; None if it was its turn."""

    index: int
    focus: int | None = None


class Order:
    """The index of the sample at each position of a run."""

    def __init__(self, num_samples: int, seed: int, draws: Draws = UNIFORM):
        self._num_samples, self._seed, self._draws = num_samples, seed, draws
        # One epoch holds every sample as often as its repeat factor says, rounded up or down.
        self._length = num_samples if draws.repeats is None else math.ceil(draws.repeats.sum() - 1e-9)
        self._permutations: dict[int, np.ndarray] = {}

    def drawn(self, position: int) -> Drawn:
        """The sample at `position`."""
        if self._draws.class_share > 0:
            rng = np.random.default_rng([self._seed, BY_CLASS, position])
            if rng.random() < self._draws.class_share:
                return Drawn(*self._draws.by_class(rng))
        return Drawn(self.index(position))

    def index(self, position: int) -> int:
        """Index of the sample whose turn is at `position`, without draws by class."""
        epoch, place = divmod(position, self._length)
        if epoch not in self._permutations:
            # A batch may straddle two epochs; permutations of earlier ones are no longer needed.
            self._permutations = {n: kept for n, kept in self._permutations.items() if n == epoch - 1}
            rng = np.random.default_rng([self._seed, ORDER, epoch])
            self._permutations[epoch] = rng.permutation(self._of_epoch(rng))
        return int(self._permutations[epoch][place])

    def _of_epoch(self, rng: np.random.Generator) -> np.ndarray | int:
        """The indices of an epoch, to be permuted; the number of samples stands for each of them once."""
        if self._draws.repeats is None:
            return self._num_samples
        # Systematic sampling: the steps of the rounded-down running sum, from a random start.
        ends = np.cumsum(self._draws.repeats) * (self._length / self._draws.repeats.sum())
        ends[-1] = self._length
        times = np.diff(np.floor(ends + rng.random()).astype(np.int64), prepend=0)
        return np.repeat(np.arange(self._num_samples), times)

    def substitutes(self, position: int, count: int) -> list[int]:
        """Indices of the samples that replace an unreadable one at `position`, in the order of trial."""
        rng = np.random.default_rng([self._seed, SUBSTITUTE, position])
        return rng.integers(self._num_samples, size=count).tolist()


class EndlessBatchSampler:
    """The batch sampler of training: lists of consecutive positions from `start` on, without end. Of each
    `batch_size` positions, a list has those at the places `part`; None: all of them."""

    def __init__(self, start: int, batch_size: int, part: range | None = None):
        self.start, self.batch_size = start, batch_size
        self.part = range(batch_size) if part is None else part

    def __iter__(self) -> Iterator[list[int]]:
        position = self.start
        while True:
            yield [position + place for place in self.part]
            position += self.batch_size
