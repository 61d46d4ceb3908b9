"""Reads, augments and collates the samples of a batch.

How a training sample is augmented is a function of (seed, position), as its place in the order is
(loader/order.py), so neither the number of workers nor a resume changes a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from segtrain.augmentation import apply
from segtrain.errors import DataError
from segtrain.loader.batch import Batch, collated
from segtrain.loader.draws import UNIFORM, Draws
from segtrain.loader.order import AUGMENT, Drawn, Order
from segtrain.loader.usable import read_sample
from segtrain.loader.workers import note_reading
from segtrain.sample import Sample, no_label

SUBSTITUTES = 10  # tried before a position without a readable sample is an error


class Reader:
    """Training samples by position, augmented and collated."""

    def __init__(
        self,
        split,
        ops: tuple[Callable, ...],
        seed: int,
        skip_bad: bool = False,
        cached: bool = False,
        dtype: str | None = None,
        draws: Draws = UNIFORM,
    ):
        """skip_bad: substitute unreadable samples. cached: keep decoded samples in memory. dtype: pixel
        type that all images must have; None: any. draws: how often each sample is drawn."""
        self.split, self.ops, self.seed, self.skip_bad, self.dtype = split, ops, seed, skip_bad, dtype
        self.cache: dict[int, Sample] | None = {} if cached else None
        self.order = Order(len(split), seed, draws)

    def raw(self, index: int) -> Sample:
        """Sample `index` before augmentation; arrays in the cache are read-only."""
        if self.cache is None:
            return self._read(index)
        if index not in self.cache:
            sample = self._read(index)
            for array in (sample.image, sample.target, sample.instances):
                if array is not None:
                    array.flags.writeable = False
            self.cache[index] = sample
        return replace(self.cache[index])

    def _read(self, index: int) -> Sample:
        note_reading(index)
        return read_sample(self.split, index, self.dtype)

    def sample(self, position: int, index: int, skipped: list[str], focus: int | None = None) -> Sample:
        """The augmented sample. focus: see `Sample`."""
        rng = np.random.default_rng([self.seed, AUGMENT, position])
        raw = replace(self.raw(index), focus=focus)
        return apply(self.ops, raw, rng, functools.partial(self._another, skipped))

    def _another(self, skipped: list[str], rng: np.random.Generator) -> Sample:
        """A random raw sample, for operations that mix two samples; with skip_bad, unreadable ones are
        drawn again."""
        for attempt in range(SUBSTITUTES + 1):
            try:
                return self.raw(int(rng.integers(len(self.split))))
            except DataError as error:
                if not self.skip_bad or attempt == SUBSTITUTES:
                    raise
                skipped.append(str(error))

    def sample_or_substitute(self, position: int, skipped: list[str]) -> Sample:
        """The augmented sample at `position`; if it is unreadable and skip_bad is set, the first readable
        one of a seeded list of substitutes."""
        drawn = self.order.drawn(position)
        if not self.skip_bad:
            return self.sample(position, drawn.index, skipped, drawn.focus)
        for one in (drawn, *map(Drawn, self.order.substitutes(position, SUBSTITUTES))):
            try:
                sample = self.sample(position, one.index, skipped, one.focus)
                break
            except DataError as error:
                last = error
                skipped.append(str(error))
        else:
            raise DataError(f"{SUBSTITUTES + 1} samples in a row cannot be read, the last: {last}")
        return sample

    def batch(self, positions: list[int]) -> Batch:
        skipped: list[str] = []
        samples = [self.sample_or_substitute(position, skipped) for position in positions]
        return collated(samples, positions, skipped=skipped)


class EvaluationReader:
    """Samples by index, collated to batches of one shape."""

    def __init__(self, split, filled_to: dict[int, int], ignore_index: int):
        """filled_to: batch size to pad to, keyed by the batch's first index."""
        self.split, self.filled_to, self.ignore_index = split, filled_to, ignore_index

    def batch(self, indices: list[int]) -> Batch:
        samples = []
        for index in indices:
            note_reading(index)
            samples.append(self.split[index])
        missing = self.filled_to[indices[0]] - len(samples)
        last = samples[-1]
        filler = replace(
            last,
            target=np.full_like(last.target, no_label(last.target.dtype, self.ignore_index)),
            instances=None if last.instances is None else np.zeros_like(last.instances),
        )
        return collated(
            samples + [filler] * missing,
            indices + [indices[-1]] * missing,
            count=len(indices),
            with_instances=True,
        )
