"""What every data set gives back: its facts and its splits."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from segtrain.errors import printable
from segtrain.sample import Facts, Sample


class Split(Protocol):
    """Samples by index. It is sent to worker processes, so it holds paths and numbers, never open files."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The sample as it is stored, its target checked against the classes; DataError names the file."""

    def name(self, index: int) -> str:
        """What messages call sample `index`; reads nothing."""

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of sample `index`, from the header alone."""


@dataclass(frozen=True)
class Data:
    """A data set: `splits` has at least "train" and "val".

    settled: options that were left unset and have been decided from the files (class names, label_map). A run
    saves them, so that other files are later read in the same way.
    """

    facts: Facts
    splits: Mapping[str, Split]
    settled: Mapping[str, object] = field(default_factory=dict)


def notice(text: str) -> None:
    """One line on stderr that does not stop anything."""
    print(f"segtrain: {printable(text)}", file=sys.stderr)
