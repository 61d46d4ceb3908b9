"""The states of the random generators of Python, NumPy and torch, for an exact resume."""

from __future__ import annotations

import random

import numpy as np
import torch

from segtrain import ranks


def distinct_per_rank(seed: int, step: int = 0) -> None:
    """Seeds the generators of a rank above 0, so that dropout differs from rank to rank, and after a resume
    from what it was at the start."""
    if ranks.rank() > 0:
        own = int(np.random.default_rng([seed % 2**63, step, ranks.rank()]).integers(2**31))
        random.seed(own)
        np.random.seed(own)
        torch.manual_seed(own)


def random_state() -> dict:
    """The states of the global random generators of Python, NumPy and torch, as tensors and plain Python.
    "ranks" is for those of the ranks above 0."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss],
        "numpy": [
            str(name),
            torch.tensor(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": [],
        "ranks": [],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict, step: int = 0) -> None:
    """Restores the states from `random_state()` after that step; GPUs that no longer exist are ignored. A
    rank above 0 takes its own; where the run had fewer ranks before, it draws a new state."""
    others = state.get("ranks", [])
    if ranks.rank() > len(others):
        distinct_per_rank(int(state["torch"][:8].view(torch.int64)), step)
        return
    if ranks.rank() > 0:
        state = others[ranks.rank() - 1]
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for index, one in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(one, index)
