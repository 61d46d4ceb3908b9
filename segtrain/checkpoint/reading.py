"""Reading a checkpoint that is whole, beside a training that may remove it meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from segtrain.checkpoint.finding import find
from segtrain.checkpoint.format import describe
from segtrain.checkpoint.tensors import load_weights
from segtrain.errors import CheckpointError


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read. description: config, facts, task, step, scores and protocol. weights: what
    evaluate and predict use, on the CPU."""

    path: Path
    description: dict
    weights: dict[str, Tensor]


def read_folder(path: Path) -> Checkpoint:
    """The checkpoint in the folder RUN/checkpoints/STEP; CheckpointError if it cannot be read."""
    return Checkpoint(path, describe(path), load_weights(path))


def read(run: Path | str, which: str | int = "best", key: str = "run") -> Checkpoint:
    """The checkpoint that `find` finds, with its errors; all of it is read now.

    Where a training has removed it between the finding and the reading, the next one is read.
    """
    while True:
        path = find(run, which, key)
        try:
            return read_folder(path)
        except CheckpointError:
            if path.exists():
                raise
