"""One optimizer step: forward, loss, backward, clip, update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from segtrain import ranks
from segtrain.predictor.device import autocast
from segtrain.ranks.sharded import is_cut, synchronise
from segtrain.settings import Trainer
from segtrain.train.freezing import Freezing
from segtrain.train.state import RunState


@dataclass(frozen=True)
class Learning:
    """Everything that a step needs besides the state and the batch.

    normalise: images -> float input of the network. schedule: step -> factor of the base learning rate.
    forward: input -> `Output`, called in place of the network (torch.compile). step: the task's step, called
    in place of `train_step`. freezing: called before each step. batch_size: images per optimizer step, over
    all ranks.
    """

    loss: Callable
    normalise: Callable[[Tensor], Tensor]
    schedule: Callable[[int], float]
    settings: Trainer
    device: torch.device
    forward: Callable | None = None
    step: Callable | None = None
    freezing: Freezing = field(default_factory=Freezing)
    batch_size: int = 1


def train_step(state: RunState, batch, learning: Learning) -> tuple[Tensor, Tensor]:
    """Makes one optimizer step; returns the summed loss and its summed weight, as scalars on the device.

    The gradient is that of summed loss / summed weight, however many micro-batches and ranks the batch is
    split over. If the summed weight is 0, loss and gradient are exactly 0.
    """
    settings, device = learning.settings, learning.device
    totals, weights = [], []
    # The summed weight of several micro-batches or ranks is known only after the last one. Until then each
    # loss is divided by the number of pixels, and `update` corrects the gradients.
    nominal = batch.targets.numel() if settings.accumulate > 1 else None
    if ranks.world_size() > 1:  # of the whole batch, since all ranks must divide by the same number
        nominal = batch.targets[0].numel() * learning.batch_size
    for images, targets in micro_batches(batch, settings, device):  # B×K×H×W, B×H×W or B×T×H×W
        synchronise(state.model, len(totals) == settings.accumulate - 1)
        with autocast(device, settings.amp):
            output = (state.model if learning.forward is None else learning.forward)(
                learning.normalise(images)
            )
        total, weight = learning.loss(output._replace(images=images, step=state.step), targets)
        state.scaler.scale(total / (nominal or _divisor(weight))).backward()
        totals.append(total.detach())
        weights.append(weight.detach())
    total, weight = (sum(parts[1:], parts[0]) for parts in (totals, weights))
    if ranks.world_size() > 1:
        total, weight = ranks.all_reduce_sum(torch.stack([total.double(), weight.double()])).float()
    update(state, "network", learning, nominal / _divisor(weight) if nominal else None)
    state.scaler.update()
    return total if _known_positive(weight) else total * (weight > 0), weight


def _divisor(weight: Tensor) -> Tensor:
    """The weight to divide by; infinity in place of 0, so that a finite loss and its gradient become exactly
    0."""
    if _known_positive(weight):
        return weight.detach()
    return torch.where(weight > 0, weight, torch.inf).detach()


def _known_positive(weight: Tensor) -> bool:
    """Whether the weight is on the CPU and above 0. Reading it there is faster than a further tensor
    operation; reading it from a GPU would wait for the forward pass."""
    return weight.device.type == "cpu" and weight.item() > 0


def micro_batches(batch, settings: Trainer, device) -> Iterator[tuple[Tensor, Tensor]]:
    """(images, targets) on the device for each of `trainer.accumulate` micro-batches of almost equal size."""
    batch = batch.to(device)
    images, targets = batch.images, batch.targets
    if settings.memory_format == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    if settings.accumulate == 1:
        yield images, targets
        return
    yield from zip(
        images.tensor_split(settings.accumulate), targets.tensor_split(settings.accumulate), strict=True
    )


def update(state: RunState, name: str, learning: Learning, factor: Tensor | None = None) -> None:
    """Updates the parameters of `state.optimizers[name]` and no others: sums their gradients over the ranks,
    unscales them, multiplies them by `factor`, clips them, makes the optimizer's step and clears them. A
    training step calls this once for each of its optimizers, and `state.scaler.update()` after the last
    one."""
    optimizer = state.optimizers[name]
    factor_of_rate = learning.schedule(state.step)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor_of_rate
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if ranks.world_size() > 1:
        ranks.sum_gradients([p for p in parameters if not is_cut(p)])
    parameters = [p for p in parameters if p.grad is not None]
    state.scaler.unscale_(optimizer)
    if factor is not None:
        torch._foreach_mul_([p.grad for p in parameters], factor)
    if learning.settings.clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, learning.settings.clip_norm)
    state.scaler.step(optimizer)
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def update_average(state: RunState, decay: float) -> None:
    """Updates the EMA with decay min(d, (1 + t) / (10 + t)) at step t, so that the initial weights are soon
    forgotten."""
    decay = min(decay, (1 + state.step) / (10 + state.step))
    averaged, present, copied = state.average_tensors
    torch._foreach_lerp_(averaged, present, 1 - decay)
    for kept, new in copied:
        kept.copy_(new)
