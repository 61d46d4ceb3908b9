"""The order of training samples: position -> index.

Positions count samples over all epochs, without end. Each epoch has its own permutation, a function of (seed,
epoch) alone, so neither the number of workers nor a resume changes which sample stands at a position.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ORDER, AUGMENT, SUBSTITUTE = 1, 2, 3
"""Random streams derived from one seed: permutations, augmentation, substitutes of unreadable samples."""


class Order:
    """The index of the sample at each position of a run."""

    def __init__(self, num_samples: int, seed: int):
        self._num_samples, self._seed = num_samples, seed
        self._permutations: dict[int, np.ndarray] = {}

    def index(self, position: int) -> int:
        """Index of the sample at `position`."""
        epoch, place = divmod(position, self._num_samples)
        if epoch not in self._permutations:
            # A batch may straddle two epochs; permutations of earlier ones are no longer needed.
            self._permutations = {n: kept for n, kept in self._permutations.items() if n == epoch - 1}
            rng = np.random.default_rng([self._seed, ORDER, epoch])
            self._permutations[epoch] = rng.permutation(self._num_samples)
        return int(self._permutations[epoch][place])

    def substitutes(self, position: int, count: int) -> list[int]:
        """Indices of the samples that replace an unreadable one at `position`, in the order of trial."""
        rng = np.random.default_rng([self._seed, SUBSTITUTE, position])
        return rng.integers(self._num_samples, size=count).tolist()


class EndlessBatchSampler:
    """The batch sampler of training: lists of `batch_size` consecutive positions from `start` on, without
    end."""

    def __init__(self, start: int, batch_size: int):
        self.start, self.batch_size = start, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        position = self.start
        while True:
            yield list(range(position, position + self.batch_size))
            position += self.batch_size
