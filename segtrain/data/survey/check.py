"""Search for unusable samples in a whole data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from segtrain.data.parts import Data
from segtrain.errors import DataError


class Problem(NamedTuple):
    """split: name of the split. index: of the sample in it. name: the sample's. message: the error, one
    line."""

    split: str
    index: int
    name: str
    message: str


def problems(data: Data) -> Iterator[Problem]:
    """All samples that fail to load: damaged files, image and mask of different sizes, mask values
    outside the classes."""
    for split_name, split in data.splits.items():
        for index in range(len(split)):
            try:
                split[index]
            except DataError as error:
                yield Problem(split_name, index, split.name(index), str(error))
