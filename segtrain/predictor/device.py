"""Devices and mixed precision."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from segtrain.errors import ConfigError

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: str):
    """The autocast context of a forward pass; no mixed precision for "none"."""
    return nullcontext() if amp == "none" else torch.autocast(device.type, AMP[amp])


def choose_device(wish: str) -> torch.device:
    """The device for `wish`; "auto" takes cuda, else mps, else cpu."""
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(wish)
    except RuntimeError as error:
        raise ConfigError(f"device is {wish!r}; allowed: auto, cpu, cuda, cuda:1 and so on, mps") from error
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}.get(
        device.type, 0
    )
    if (device.index or 0) >= there:
        raise ConfigError(f"device={wish}: this machine has {there} of them; use device=auto")
    return device
