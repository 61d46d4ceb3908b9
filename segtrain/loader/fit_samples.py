"""Samples in order, for networks that are fitted instead of trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tqdm import tqdm

from segtrain.errors import DataError
from segtrain.loader.batches import BAD_SHARE
from segtrain.loader.usable import read_sample, training_dtype
from segtrain.sample import Sample
from segtrain.text import notice


class Samples:
    """The first `count` samples of a split without augmentation; can be iterated over repeatedly.
    interrupt: called before each sample; an exception that it raises ends the iteration. skip_bad: leave
    out unreadable samples."""

    def __init__(
        self, split, count: int, skip_bad: bool = False, interrupt: Callable[[], None] = lambda: None
    ):
        self._split, self._count, self._skip_bad, self._interrupt = split, count, skip_bad, interrupt

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        bad, dtype = 0, training_dtype(self._split)
        for index in tqdm(range(self._count), unit="image", desc="reading", leave=False, disable=None):
            self._interrupt()
            try:
                sample = read_sample(self._split, index, dtype)
            except DataError as error:
                bad += 1
                if not self._skip_bad or bad > max(1, BAD_SHARE * self._count):
                    raise
                notice(f"skipped: {error}")
                continue
            yield sample
