"""Reading a checkpoint while a training in another process may remove it."""

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
    """A checkpoint in memory. description: config, facts, task, step, scores and protocol. weights: the
    tensors for evaluate and predict (EMA weights if EMA is on), on the CPU."""

    path: Path
    description: dict
    weights: dict[str, Tensor]


def read_folder(path: Path) -> Checkpoint:
    """Reads the checkpoint folder RUN/checkpoints/STEP; CheckpointError if it cannot be read."""
    return Checkpoint(path, describe(path), load_weights(path))


def read(run: Path | str, which: str | int = "best", key: str = "run") -> Checkpoint:
    """Finds and reads a checkpoint of a run; arguments and errors as of `find`.

    If a concurrent training removes the checkpoint before it is read completely, the search starts again.
    """
    while True:
        path = find(run, which, key)
        try:
            return read_folder(path)
        except CheckpointError:
            if path.exists():
                raise
