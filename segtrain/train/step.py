"""One optimizer step: forward, loss, backward, clip, update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from segtrain.predictor.device import autocast
from segtrain.settings import Trainer
from segtrain.train.state import RunState

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Learning:
    """What a step needs beside the state and the batch.

    normalise: images -> float input of the network. forward: that -> `Output`, in place of the network itself
    (compiled).
    """

    loss: Callable
    normalise: Callable[[Tensor], Tensor]
    schedule: Callable[[int], float]
    settings: Trainer
    device: torch.device
    parameters: list[Tensor] = field(default_factory=list)
    forward: Callable | None = None


def train_step(state: RunState, batch, learning: Learning) -> tuple[Tensor, Tensor]:
    """One optimizer step; the summed loss and its summed weight, on the device. The gradient is that of their
    quotient, however many micro-batches the batch is split into."""
    settings, device = learning.settings, learning.device
    totals, weights = [], []
    # With several parts, the sum of the weights is known after the last one only; until then any fixed number
    # will do.
    nominal = batch.targets.numel() if settings.accumulate > 1 else None
    for images, targets in micro_batches(batch, settings, device):
        with autocast(device, settings.amp):
            output = (state.model if learning.forward is None else learning.forward)(
                learning.normalise(images)
            )
        total, weight = learning.loss(output, targets)
        state.scaler.scale(total / (nominal or _divisor(weight))).backward()
        totals.append(total.detach())
        weights.append(weight.detach())
    total, weight = (sum(parts[1:], parts[0]) for parts in (totals, weights))
    factor = nominal / _divisor(weight) if nominal else None
    for optimizer in state.optimizers.values():
        _apply(state, optimizer, learning, factor)
    state.scaler.update()
    return total, weight


def _divisor(weight: Tensor) -> Tensor:
    """The weight, kept above 0: a batch without any label has a loss and a gradient of 0, and 0 they stay."""
    return weight.detach().clamp_min(1e-12)


def micro_batches(batch, settings: Trainer, device) -> Iterator[tuple[Tensor, Tensor]]:
    batch = batch.to(device)
    images, targets = batch.images, batch.targets
    if settings.memory_format == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    if settings.accumulate == 1:
        yield images, targets
        return
    # The first axis is split as evenly as it goes; every part keeps at least one image.
    yield from zip(
        images.tensor_split(settings.accumulate), targets.tensor_split(settings.accumulate), strict=True
    )


def _apply(state: RunState, optimizer, learning: Learning, factor: Tensor | None) -> None:
    """Scales the gradients by `factor`, clips them and updates the weights."""
    rate = learning.schedule(state.step)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * rate
    state.scaler.unscale_(optimizer)
    if factor is not None:
        torch._foreach_mul_([p.grad for p in learning.parameters if p.grad is not None], factor)
    if learning.settings.clip_norm is not None:
        nn.utils.clip_grad_norm_(learning.parameters, learning.settings.clip_norm)
    state.scaler.step(optimizer)
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def update_average(state: RunState, decay: float) -> None:
    """Moves the averaged weights towards the present ones; decay min(d, (1+t)/(10+t)), so that early steps
    count."""
    decay = min(decay, (1 + state.step) / (10 + state.step))
    averaged, present, copied = state.average_tensors
    torch._foreach_lerp_(averaged, present, 1 - decay)
    for kept, new in copied:
        kept.copy_(new)
