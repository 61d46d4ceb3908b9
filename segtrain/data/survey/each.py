"""Applies a function to every sample of a data set, in several threads."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from segtrain.data.parts import Split
from segtrain.errors import printable

THREADS = min(16, 2 * (os.cpu_count() or 1))  # more than cores: on network storage they wait
AHEAD = 4 * THREADS  # samples that are begun before the result of an earlier one is taken

Result = TypeVar("Result")


def of_each(
    function: Callable[[Split, int], Result], samples: Sequence[tuple[Split, int]], what: str
) -> Iterator[Result]:
    """`function(split, index)` of each sample, in order, with a progress bar. what: the words beside the bar.

    Leaving the iteration early, as an error or a signal does, waits for the samples that are being read.
    """
    pool = ThreadPoolExecutor(THREADS)
    bar = tqdm(total=len(samples), unit="image", desc=printable(what), leave=False, disable=None)
    begun: collections.deque = collections.deque()
    rest = iter(samples)
    try:
        with contextlib.closing(bar):
            for split, index in itertools.islice(rest, AHEAD):
                begun.append(pool.submit(function, split, index))
            while begun:
                yield begun.popleft().result()
                bar.update()
                for split, index in itertools.islice(rest, 1):
                    begun.append(pool.submit(function, split, index))
    finally:
        pool.shutdown(cancel_futures=True)


def stored(split: Split, index: int) -> tuple[Split, int]:
    """The split that reads sample `index`, and the sample's index there: splits that choose from or join
    others have a method `place(index)`."""
    while hasattr(split, "place"):
        split, index = split.place(index)
    return split, index
