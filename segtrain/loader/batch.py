"""A batch, and the collation of samples."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from torch.utils.data import get_worker_info

from segtrain.errors import ConfigError, DataError, ResourceError
from segtrain.sample import Sample


@dataclass
class Batch:
    """images: B×K×H×W uint8, uint16 or float32. targets: B×H×W or B×T×H×W, in the task's dtype. names,
    positions: of each sample.

    count: number of real samples; the rest are copies, all of whose pixels are ignored and belong to no
    object, that pad the last evaluation batch. skipped: one message for each unreadable sample that was
    substituted. instances: B×H×W uint16 or None.
    """

    images: torch.Tensor
    targets: torch.Tensor
    names: list[str]
    positions: list[int]
    count: int
    skipped: list[str] = field(default_factory=list)
    instances: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The batch on `device`. Copies to a GPU go through pinned memory and are asynchronous."""
        device = torch.device(device)
        if device.type == "cpu":
            return self
        tensors = {"images": self.images, "targets": self.targets}
        if device.type == "cuda":
            tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
        return replace(
            self, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
        )


def collated(
    samples: list[Sample],
    positions: list[int],
    count: int | None = None,
    skipped: list[str] | None = None,
    with_instances: bool = False,
) -> Batch:
    """The samples as one batch, channels first. ConfigError if image sizes or dtypes differ."""
    first = samples[0]
    for sample in samples:
        if sample.image.shape != first.image.shape or sample.image.dtype != first.image.dtype:
            alike = sample.image.shape == first.image.shape
            fix = (
                "save all images with as many bits"
                if alike
                else "set augmentation.warp.size, or loader.batch_size=1"
            )
            raise ConfigError(
                f"a batch holds {_form(first)} ({first.name}) and {_form(sample)} ({sample.name}); images "
                f"of one batch have one size and "
                f"one type: {fix}"
            )
        if sample.target is None:
            raise DataError(f"{sample.name} has no mask; training and evaluation need one for each image")
    height, width, channels = first.image.shape
    images = _shared((len(samples), channels, height, width), first.image.dtype)
    targets = _shared((len(samples), *_channels_first(first.target).shape), first.target.dtype)
    for place, sample in enumerate(samples):
        _fill_planes(images.numpy()[place], sample.image)
        targets.numpy()[place] = _channels_first(sample.target)
    return Batch(
        images,
        targets,
        [s.name for s in samples],
        list(positions),
        len(samples) if count is None else count,
        skipped or [],
        _instances(samples) if with_instances else None,
    )


def _fill_planes(planes: np.ndarray, image: np.ndarray) -> None:
    """Copies an H×W×K image into K×H×W."""
    if image.shape[2] == 3 and image.flags.c_contiguous:
        cv2.split(image, list(planes))  # five times as fast as numpy
    else:
        planes[:] = image.transpose(2, 0, 1)


def _instances(samples: list[Sample]) -> torch.Tensor | None:
    """B×H×W uint16; None unless every sample has instances."""
    if any(sample.instances is None for sample in samples):
        return None
    stacked = _shared((len(samples), *samples[0].instances.shape), samples[0].instances.dtype)
    for place, sample in enumerate(samples):
        stacked.numpy()[place] = sample.instances
    return stacked


def _channels_first(target: np.ndarray) -> np.ndarray:
    """H×W unchanged, H×W×T as T×H×W."""
    return target if target.ndim == 2 else target.transpose(2, 0, 1)


def _form(sample: Sample) -> str:
    return f"{'x'.join(map(str, sample.image.shape))} {sample.image.dtype}"


def _shared(shape: tuple[int, ...], dtype: np.dtype) -> torch.Tensor:
    """An uninitialised tensor; in shared memory inside a worker, so that no copy is made on the way to
    the parent process."""
    tensor = torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype)
    if get_worker_info() is None:
        return tensor
    try:
        # Writing beyond the free shared memory ends the process by SIGBUS, so its size is checked first.
        if _free_shared_memory() < 2 * tensor.nbytes:
            raise OSError(
                f"{_free_shared_memory() >> 20} MiB free, a batch takes {(tensor.nbytes >> 20) + 1} MiB"
            )
        return tensor.share_memory_()
    except (OSError, RuntimeError) as error:
        raise SharedMemoryError(
            f"shared memory (/dev/shm) is too small for the workers' batches: {error}"
        ) from error


class SharedMemoryError(ResourceError):
    """A worker finds no room for a batch."""


def shared_memory_fix(section: str) -> str:
    """What to do about too little shared memory. section: of the config, whose keys are named."""
    return (
        f"enlarge it (docker run --shm-size=8g), or set {section}.workers=0, or a smaller "
        f"{section}.batch_size"
    )


def _free_shared_memory() -> int:
    return shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else sys.maxsize
