"""Several splits as one, and samples of a split as a split."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

import numpy as np

from segtrain.data.parts import Header, Source, Split
from segtrain.errors import DataError
from segtrain.sample import Sample


class SplitOfSplits:
    """A split whose samples are those of other splits: sample `index` is that at `place(index)`."""

    def place(self, index: int) -> tuple[Split, int]:
        """The split that holds sample `index`, and the sample's index there."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        split, inside = self.place(index)
        return split[inside]

    def target(self, index: int) -> np.ndarray:
        """The target of a sample; the image is not read where its split can do without."""
        return target_of(*self.place(index))

    def name(self, index: int) -> str:
        split, inside = self.place(index)
        return split.name(inside)

    def size(self, index: int) -> tuple[int, int]:
        split, inside = self.place(index)
        return split.size(inside)

    def source(self, index: int) -> Source | None:
        """The `Source` of a sample; None if its split has none."""
        return source_of(*self.place(index))


class ConcatSplit(SplitOfSplits):
    """The samples of several splits, one split after the other."""

    def __init__(self, splits: Sequence[Split]):
        self.splits = list(splits)
        self._starts = [0, *itertools.accumulate(len(split) for split in splits)]

    def __len__(self) -> int:
        return self._starts[-1]

    def names_and_groups(self) -> list[tuple[str, str]] | None:
        """(name, group) of each sample; None if one of the splits does not tell them."""
        found = [
            split.names_and_groups() if hasattr(split, "names_and_groups") else None for split in self.splits
        ]
        return None if None in found else list(itertools.chain(*found))

    def headers(self, indices: Sequence[int]) -> list[Header | DataError]:
        """The header of each image, or the DataError of a sample that cannot be used."""
        found: dict[int, Header | DataError] = {}
        for split, start in zip(self.splits, self._starts, strict=False):
            inside = [index for index in indices if start <= index < start + len(split)]
            found |= zip(inside, headers_of(split, [index - start for index in inside]), strict=True)
        return [found[index] for index in indices]

    def without_instances(self) -> ConcatSplit:
        """The same samples; files of object numbers are not read."""
        return ConcatSplit([without_instances(split) for split in self.splits])

    def image_hashes(self) -> list[str] | None:
        """The hash of each sample's image; None if one of the splits does not tell them."""
        found = [_hashes(split) for split in self.splits]
        return None if None in found else list(itertools.chain(*found))

    def place(self, index: int) -> tuple[Split, int]:
        """The split that holds sample `index`, and the sample's index there."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._starts, index) - 1
        return self.splits[number], index - self._starts[number]


class SubsetSplit(SplitOfSplits):
    """Some samples of a split, or some of them repeatedly. indices: of the samples, in order."""

    def __init__(self, split: Split, indices: Sequence[int]):
        self.split = split
        # As an array: a list of Python numbers is large, and is sent to each worker.
        self.indices = np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def names_and_groups(self) -> list[tuple[str, str]] | None:
        """(name, group) of each sample; None if the split does not tell them."""
        found = self.split.names_and_groups() if hasattr(self.split, "names_and_groups") else None
        return None if found is None else [found[index] for index in self.indices.tolist()]

    def headers(self, indices: Sequence[int]) -> list[Header | DataError]:
        """The header of each image, or the DataError of a sample that cannot be used."""
        return headers_of(self.split, [self._inside(index) for index in indices])

    def without_instances(self) -> SubsetSplit:
        """The same samples; files of object numbers are not read."""
        return SubsetSplit(without_instances(self.split), self.indices)

    def place(self, index: int) -> tuple[Split, int]:
        """The split that holds sample `index`, and the sample's index there."""
        return self.split, self._inside(index)

    def image_hashes(self) -> list[str] | None:
        """The hash of each sample's image; None if the split does not tell them."""
        found = _hashes(self.split)
        return None if found is None else [found[index] for index in self.indices.tolist()]

    def _inside(self, index: int) -> int:
        return int(self.indices[index])


def target_of(split: Split, index: int) -> np.ndarray:
    """`split.target`; of a split without that method, the target of the whole sample."""
    return split.target(index) if hasattr(split, "target") else split[index].target


def without_instances(split: Split) -> Split:
    """`split.without_instances`; a split without that method itself, because its instances cost no
    reading."""
    return split.without_instances() if hasattr(split, "without_instances") else split


def source_of(split: Split, index: int) -> Source | None:
    """`split.source`; None of a split without that method."""
    return split.source(index) if hasattr(split, "source") else None


def headers_of(split: Split, indices: list[int]) -> list[Header | DataError]:
    """`split.headers`; of a split without that method, the sizes are read one by one."""
    if hasattr(split, "headers"):
        return split.headers(indices)
    headers: list[Header | DataError] = []
    for index in indices:
        try:
            headers.append(Header(*split.size(index)))
        except DataError as error:
            headers.append(error)
    return headers


def _hashes(split: Split) -> list[str] | None:
    """`split.image_hashes`; None of a split without that method."""
    return split.image_hashes() if hasattr(split, "image_hashes") else None
