"""All samples of a data set that cannot be used, before a run meets the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from segtrain.data.parts import Data
from segtrain.errors import DataError


class Problem(NamedTuple):
    """split: its name. index: within the split. name: of the sample. message: one line that says what is
    wrong and where."""

    split: str
    index: int
    name: str
    message: str


def problems(data: Data) -> Iterator[Problem]:
    """Each sample that does not load: damaged, of another size than its mask, with labels outside the
    classes."""
    for split_name, split in data.splits.items():
        for index in range(len(split)):
            try:
                split[index]
            except DataError as error:
                yield Problem(split_name, index, split.name(index), str(error))
