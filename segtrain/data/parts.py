"""The protocol of a data set: facts and splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from segtrain.sample import Facts, Sample


class Header(NamedTuple):
    """Size and pixel type of an image that is not decoded. dtype: numpy's name; None: unknown."""

    height: int
    width: int
    dtype: str | None = None


class Source(NamedTuple):
    """What a sample is made of: two samples are equal if their sources and the content of `files` are equal.

    files: paths of all files that the sample is read from. reading: how they are read: the label map, the
    channels, the sample's name …; for drawn samples, what is drawn.
    """

    files: tuple[str, ...]
    reading: str


def digest_of(*values: object) -> str:
    """A short text for `Source.reading` that differs if the `repr` of a value does."""
    return hashlib.sha256(repr(values).encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Split(Protocol):
    """Samples by index. It is sent to worker processes, so it holds paths and numbers, never open files.

    Further methods are used where a split has them. `headers(indices)`: a list of `Header`, or of the
    DataError of a sample that cannot be used; many files are read faster together than with `size`.
    `target(index)`: the sample's target without the image. `names_and_groups()`: the (name, group) of each
    sample, or None, which reads nothing; data/selection.py cuts splits by them. `source(index)`: its
    `Source`, without which decoded samples cannot be kept on disk. `image_hashes()`: a hash of 8 letters of
    each image's name and content, or None, by which a run knows its training images after they have moved.
    `without_instances()`: the same samples without their instances, if those are read from files of their
    own.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The sample as it is stored, its target checked against the classes; DataError names the file."""

    def name(self, index: int) -> str:
        """What messages call sample `index`; reads nothing."""

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of sample `index`, from the header alone."""


@dataclass(frozen=True)
class Data:
    """A data set. splits: "train" and "val" (a folder with a single image may lack one of the two), and
    "test" if the data set has a test split, whose targets may be IGNORE everywhere (Cityscapes). The split
    "all", all of them together, is made by `commands.dataset.split_of`.

    settled: options that were left unset and have been decided from the files (class names, label_map). A run
    saves them, so that other files are later read in the same way.
    """

    facts: Facts
    splits: Mapping[str, Split]
    settled: Mapping[str, object] = field(default_factory=dict)
