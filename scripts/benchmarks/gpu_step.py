"""The training step of DeepLabv3+ with ResNet-50 on one device: segtrain's own beside a plain loop."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.loop import prepared
from benchmarks.loss import growth
from benchmarks.paired import Left
from benchmarks.roofs import Work, timed
from segtrain.loader.batch import Batch
from segtrain.model import MODEL
from segtrain.optimizer import OPTIMIZER
from segtrain.predictor.device import AMP, autocast
from segtrain.sample import IGNORE
from segtrain.settings import Trainer
from segtrain.train.compiled import compiled
from segtrain.train.sharding import place
from segtrain.train.state import RunState
from segtrain.train.step import Learning, train_step

RATE, MOMENTUM, DECAY = 0.01, 0.9, 1e-4


@dataclass(frozen=True)
class Case:
    """What is measured: batch images of `size` (H, W) a step. backend: of trainer.compile. workers: of the
    loader."""

    device: torch.device
    batch: int
    size: tuple[int, int]
    encoder: str
    backend: str
    workers: int
    quick: bool = False
    classes: int = 19
    amp: str = "bf16"

    @property
    def dtype(self) -> torch.dtype:
        return AMP[self.amp]

    def network(self) -> nn.Module:
        recipe = {"name": "deeplabv3plus", "encoder": self.encoder, "output_stride": 16, "weights": "none"}
        torch.manual_seed(0)
        return MODEL.build(recipe, out_channels=self.classes, num_classes=self.classes, in_channels=3)

    def images(self) -> Batch:
        """A batch of noise as the loader gives it: uint8, on the CPU."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, *self.size)
        images = torch.randint(0, 256, (self.batch, 3, *self.size), dtype=torch.uint8, generator=generator)
        targets = torch.randint(0, self.classes, shape, dtype=torch.uint8, generator=generator)
        targets[:, :2] = IGNORE
        return Batch(images, targets, ["noise"] * self.batch, list(range(self.batch)), self.batch)

    def learning(self, memory_format: str, compile: bool = False) -> tuple[RunState, Learning]:
        """What `segtrain train` hands to its loop."""
        network = self.network()
        settings = Trainer(
            amp=self.amp, memory_format=memory_format, compile=self.backend if compile else None
        )
        place(network, settings, self.device)
        sgd = {"name": "sgd", "lr": RATE, "momentum": MOMENTUM, "weight_decay": DECAY}
        optimizer = OPTIMIZER.build(sgd, network=network)
        state, learning = prepared(
            network, optimizer, network.normalisation, settings, self.classes, device=self.device
        )
        forward = compiled(network, self.backend) if compile else None
        return state, replace(learning, forward=forward)


def own_step(case: Case, memory_format: str, compile: bool = False) -> Callable[[], None]:
    """segtrain's step, from a batch on the CPU to the new weights."""
    state, learning = case.learning(memory_format, compile)
    state.train_mode()
    batch = case.images()

    def step() -> None:
        train_step(state, batch, learning)
        state.step += 1

    return step


def plain_step(case: Case) -> Callable[[], None]:
    """The step of references/segmentation/train.py of torchvision on the same network: batches of normalised
    float32, autocast, cross-entropy of logits upsampled to the size of the labels, torch's SGD, the loss read
    after each step."""
    network = case.network().to(case.device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, 1_000_000, 0.9)
    batch = case.images()
    images, targets = network.normalisation(batch.images), batch.targets.long()
    if case.device.type == "cuda":
        images, targets = images.pin_memory(), targets.pin_memory()

    def step() -> None:
        there, labels = (one.to(case.device, non_blocking=True) for one in (images, targets))
        with autocast(case.device, case.amp):
            logits = network(there).logits
            logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
            loss = F.cross_entropy(logits, labels, ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        loss.item()

    return step


SIDES: dict[str, Callable[[Case], Callable[[], None]]] = {
    "plain loop": plain_step,
    "eager": lambda case: own_step(case, "contiguous"),
    "eager, channels_last": lambda case: own_step(case, "channels_last"),
    "compiled, channels_last": lambda case: own_step(case, "channels_last", compile=True),
}


def seconds_of_sides(case: Case) -> dict[str, list[float] | str]:
    """Seconds a step of each side in SIDES, a number for each of several blocks that they take in turns; or
    why a side cannot run. The first steps, which compile, are not counted."""
    warm, steps, blocks = (1, 1, 2) if case.quick else (5, 10, 7)
    ready, found = {}, {}
    for name, build in SIDES.items():
        try:
            ready[name] = build(case)
            timed(ready[name], case.device, warm)
            found[name] = []
        except Exception as error:
            if is_out_of_memory(error):
                raise
            ready.pop(name, None)
            found[name] = f"failed: {type(error).__name__}: {error}"
    for block in range(blocks):
        names = list(ready)
        for name in names[block % len(names) :] + names[: block % len(names)]:
            found[name].append(timed(ready[name], case.device, steps))
    return found


def work_of(case: Case) -> dict[str, Work]:
    """What a step of the plain loop and one of segtrain compute, by name of the side."""
    counted = {}
    for name in ("plain loop", "eager"):
        step = SIDES[name](case)
        step()  # the optimizer makes its state at the first one
        with Work(case.device) as counted[name]:
            step()
        del step
        release(case.device)
    return counted


def peak_memory(case: Case) -> dict[str, float | str]:
    """Peak memory of a step in bytes, with the loss in bands and with logits upsampled at once; or that it is
    out of memory. On a CPU, what a step adds to the memory of the process."""
    found: dict[str, float | str] = {}
    for name, context in (("banded loss", _as_it_is), ("upsampled at once", without_bands)):
        release(case.device)
        try:
            with context():
                found[name] = _peak(case)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            found[name] = "out of memory"
    release(case.device)
    return found


def _peak(case: Case) -> float:
    step = own_step(case, "channels_last")
    step()
    if case.device.type != "cuda":
        try:
            return growth(step)
        except OSError as error:
            raise Left("the peak memory of a process is read from Linux's /proc") from error
    torch.cuda.reset_peak_memory_stats(case.device)
    step()
    return torch.cuda.max_memory_allocated(case.device)


@contextmanager
def _as_it_is():
    yield


@contextmanager
def without_bands():
    """A context in which losses upsample the logits at once."""
    with mock.patch("segtrain.loss.heads.pays", lambda *_: False):
        yield


def is_out_of_memory(error: BaseException) -> bool:
    # The CPU allocator raises a plain RuntimeError.
    of_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or of_cpu


def release(device: torch.device) -> None:
    """Gives freed memory back, that of cycles too."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def largest_batch(case: Case) -> int | None:
    """The largest of batch/2, batch/4 … of which every side makes a step; None if none of them does."""
    batch = case.batch // 2
    while batch >= 1:
        release(case.device)
        smaller = replace(case, batch=batch, quick=True)
        try:
            seconds_of_sides(smaller)
            return batch
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        batch //= 2
    return None
