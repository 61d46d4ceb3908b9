"""The first thing in every command that computes: threads, seeds, memory allocator, device."""

from __future__ import annotations

import contextlib
import ctypes
import random
from collections.abc import Mapping

import numpy as np
import torch

from segtrain.predictor.device import choose_device
from segtrain.run.rank import launched


def prepare(config: Mapping) -> torch.device:
    """Sets the number of threads and all seeds; returns the device."""
    if config.get("threads"):
        torch.set_num_threads(config["threads"])
    keep_memory()
    seed = config.get("seed", 0)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    device = choose_device(config["device"])
    if device.type == "cuda" and launched().size > 1:  # a GPU for each rank of this machine
        device = choose_device(f"cuda:{launched().local}")
        torch.cuda.set_device(device)
    return device


def keep_memory() -> None:
    """Makes glibc keep the memory of freed tensors. If the memory is returned to the system, the system has
    to clear it page by page at every step, which costs a training step on a CPU about a tenth of its time. No
    effect on other C libraries."""
    no_mmap, no_trim = (-4, 0), (-1, -1)  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError):
        allocator = ctypes.CDLL("libc.so.6")
        for parameter, value in (no_mmap, no_trim):
            allocator.mallopt(parameter, value)
