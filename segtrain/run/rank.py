"""The rank of this process among those that torchrun started; a process that it did not start is alone."""

from __future__ import annotations

import os
from typing import NamedTuple


class Rank(NamedTuple):
    """rank: of this process, from 0. size: number of processes (the world size). local: rank on this
    machine. restart_count: how often torchrun has restarted the processes. max_restarts: how often it may."""

    rank: int = 0
    size: int = 1
    local: int = 0
    restart_count: int = 0
    max_restarts: int = 0


def launched() -> Rank:
    """The rank that torchrun has set in the environment."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Rank()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS")
    return Rank(*(int(os.environ.get(name, default)) for name, default in zip(names, Rank(), strict=True)))
