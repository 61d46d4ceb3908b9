"""`loader.batch_size=auto`: the largest batch whose training steps a GPU has the memory for."""

from __future__ import annotations

from collections.abc import Callable

import torch

from segtrain.errors import ConfigError, ResourceError

USED = 0.85
"""Share of the free memory that a step may take; the rest is for fragments and for validation images."""
FEW, MORE = 2, 4
"""Images of the two micro-batches from which the memory of an image and of all else follows."""
ROUND = 8
"""Larger micro-batches are a multiple of this."""


def check_device(device: torch.device) -> None:
    """ConfigError unless the device is a GPU whose memory can be measured."""
    if device.type != "cuda":
        raise ConfigError(
            f"loader.batch_size=auto measures the memory of a CUDA device, and device={device}; give a "
            f"number, such as loader.batch_size=8"
        )


def largest_batch(memory_of: Callable[[int], int], available: int, most: int) -> int:
    """The largest number of images of a micro-batch, at least 1 and at most `most`.

    memory_of: images -> bytes that a training step of so many takes at its peak; raises
    torch.OutOfMemoryError where it does not fit. available: bytes that are free. ResourceError if a single
    image does not fit.
    """
    limit = USED * available
    wanted = min(_expected(memory_of, limit, most), most)
    while wanted >= 1:
        if _fits(memory_of, wanted, limit):
            return wanted
        wanted = _rounded(wanted * 3 // 4)
    raise ResourceError(
        f"loader.batch_size=auto: the device has {available / 2**30:.1f} GiB free, which is too little for "
        f"the training step of one image; use smaller crops (augmentation.warp.size) or trainer.amp=bf16"
    )


def _expected(memory_of: Callable[[int], int], limit: float, most: int) -> int:
    """The number of images that fits if memory grows in proportion to the images beyond FEW."""
    if most <= MORE:
        return most
    try:
        few, more = memory_of(FEW), memory_of(MORE)
    except torch.OutOfMemoryError:
        return MORE - 1
    of_image = max(1.0, (more - few) / (MORE - FEW))
    return max(1, _rounded(int(FEW + (limit - few) // of_image)))


def _rounded(images: int) -> int:
    return images // ROUND * ROUND if images > ROUND else images


def _fits(memory_of: Callable[[int], int], images: int, limit: float) -> bool:
    try:
        return memory_of(images) <= limit
    except torch.OutOfMemoryError:
        return False
