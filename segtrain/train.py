"""The training loop, in time order: rate, step, log, evaluate, save.

`RunState` is all that an exact resume needs. Sample order and augmentation are functions of (seed, position),
so the loader starts anywhere; everything counts optimizer steps.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from segtrain.checkpoint import random_state, restore_random_state
from segtrain.errors import ConfigError, DivergedError
from segtrain.model.norm import recompute_statistics, statistics_of
from segtrain.predictor import autocast
from segtrain.settings import Trainer

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass
class RunState:
    """The state of a run between two optimizer steps.

    position: samples taken so far, over all epochs. best: the best score yet. loss_sum, loss_weight: since
    the last log line.
    evaluation_due: an evaluation after `step` was still to come when this was saved. statistics: those of
    batch normalisation with which training goes on, while `served` has others.
    """

    model: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    loss_sum: Tensor
    loss_weight: Tensor
    ema: nn.Module | None = None
    step: int = 0
    position: int = 0
    best: float | None = None
    evaluation_due: bool = False
    statistics: dict[str, Tensor] | None = None

    @property
    def served(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average if there is one."""
        return self.model if self.ema is None else self.ema

    @functools.cached_property
    def average_tensors(self) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Averaged floating-point tensors, those that they follow, and the pairs of the others, which are
        copied."""
        pairs = list(zip(self.ema.state_dict().values(), self.model.state_dict().values(), strict=True))
        floats = [(kept, new) for kept, new in pairs if kept.is_floating_point()]
        return (
            [kept for kept, _ in floats],
            [new for _, new in floats],
            [pair for pair in pairs if not pair[0].is_floating_point()],
        )

    def plain(self) -> dict:
        """Tensors and plain Python: what `served` does not hold already."""
        return {
            "raw": dict(self.model.state_dict()) if self.ema is not None else None,
            "statistics": self.statistics,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "numbers": {name: getattr(self, name) for name in ("step", "position", "best", "evaluation_due")},
            "loss": [self.loss_sum, self.loss_weight],
            "random": random_state(),
        }

    def restore(self, weights: dict[str, Tensor], plain: dict) -> None:
        """Undoes everything since the checkpoint that `weights` and `plain` come from."""
        self.served.load_state_dict({**weights, **(plain.get("statistics") or {})})
        if self.ema is not None:
            self.model.load_state_dict(plain["raw"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(plain["optimizers"][name])
        self.scaler.load_state_dict(plain["scaler"])
        for name, value in plain["numbers"].items():
            setattr(self, name, value)
        self.loss_sum.copy_(plain["loss"][0])
        self.loss_weight.copy_(plain["loss"][1])
        restore_random_state(plain["random"])


def new_state(model: nn.Module, optimizers: dict, settings: Trainer, device: torch.device) -> RunState:
    """The state before the first step."""
    return RunState(
        model=model,
        optimizers=optimizers,
        scaler=torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16"),
        loss_sum=torch.zeros((), device=device),
        loss_weight=torch.zeros((), device=device),
        ema=copy.deepcopy(model).eval().requires_grad_(False) if settings.ema else None,
    )


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
    """One optimizer step; the summed loss and its summed weight, on the device.

    The gradient is that of their quotient, however many micro-batches the batch is split into. Where the
    summed weight is 0, the loss and the gradient are exactly 0.
    """
    settings, device = learning.settings, learning.device
    totals, weights = [], []
    # With several parts, the sum of the weights is known after the last one only; until then any fixed number
    # will do.
    nominal = batch.targets.numel() if settings.accumulate > 1 else None
    for images, targets in _micro_batches(batch, settings, device):
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
    return total * (weight > 0), weight


def _divisor(weight: Tensor) -> Tensor:
    """The weight; infinity where it is 0, which makes a finite loss and its gradient exactly 0."""
    return torch.where(weight > 0, weight, torch.inf).detach()


def _micro_batches(batch, settings: Trainer, device) -> Iterator[tuple[Tensor, Tensor]]:
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


class Finite:
    """Whether the loss stayed finite: a sum that once met infinity or not-a-number keeps it, so the sum since
    the last log line tells, and is read only when the loop waits for the device anyway."""

    def __init__(self, loss_sum: Tensor):
        self._loss_sum = loss_sum
        self._names: list[tuple[int, list[str]]] = []

    def note(self, step: int, names: list[str]) -> None:
        self._names.append((step, names))
        if self._loss_sum.device.type == "cpu":
            self.read()

    def read(self) -> None:
        """DivergedError, naming the files of the steps since the last reading, if one of their losses was not
        finite."""
        names, self._names = self._names, []
        if not math.isfinite(self._loss_sum.item()):
            files = [name for _, one in names for name in one]
            shown = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
            raise DivergedError(
                f"the loss is not finite at step "
                f"{names[0][0]}{'' if len(names) == 1 else f' to {names[-1][0]}'}; images: {shown}; "
                "lower optimizer.lr, set trainer.clip_norm, or look at these images and masks; the last "
                "checkpoint is kept"
            )


@contextlib.contextmanager
def recomputed_batch_norm(
    state: RunState, learning: Learning, draw: Callable, count: int, stop
) -> Iterator[None]:
    """Within, the batch normalisation of the served network has statistics averaged over the first `count`
    batches of `draw()`.

    Afterwards it has its own again, and a checkpoint written within keeps both: an evaluation changes nothing
    in what follows.
    """
    own = {name: buffer.clone() for name, buffer in statistics_of(state.served).items()} if count else {}
    if not own:
        yield
        return

    def inputs() -> Iterator[Tensor]:
        with draw() as batches:
            for batch in itertools.islice(batches, count):
                if stop.requested is not None:
                    return
                for images, _ in _micro_batches(batch, learning.settings, learning.device):
                    yield learning.normalise(images)

    try:
        with autocast(learning.device, learning.settings.amp):
            recompute_statistics(state.served, inputs())
        if stop.requested is None:
            state.statistics = own
        else:  # cut short they are worth nothing
            state.served.load_state_dict(own, strict=False)
        yield
    finally:
        state.served.load_state_dict(own, strict=False)
        state.statistics = None


def train(
    state: RunState,
    learning: Learning,
    plan,
    batches,
    evaluate: Callable,
    save: Callable,
    events,
    stop,
    step=train_step,
    served_as=contextlib.nullcontext,
) -> Any:
    """Runs from `state.step` to `plan.steps`; the scores of the last evaluation.

    batches: from `state.position` on, without end. evaluate(state) -> scores, logged and compared by the
    caller's function. save(state, scores) writes a checkpoint. plan: `Plan`. stop:
    `segtrain.run_folder.Stop`. served_as(): a context in which the network is evaluated and saved.
    """
    finite, clock = Finite(state.loss_sum), Clock()
    scores = _evaluate(state, plan, evaluate, save, stop, served_as) if state.evaluation_due else None
    state.model.train()
    while state.step < plan.steps:
        batch = clock.waiting(lambda: next(batches))
        for text in batch.skipped:
            events.say(f"left out: {text}")
        total, weight = step(state, batch, learning)
        state.step += 1
        state.position += batch.count
        if state.ema is not None:
            update_average(state, learning.settings.ema)
        state.loss_sum += total
        state.loss_weight += weight
        finite.note(state.step, batch.names)
        clock.count(batch.count)
        events.progress(1)

        if state.step % plan.log_every == 0 or state.step == plan.steps:
            finite.read()
            _log(state, learning, clock, events, plan)
        state.evaluation_due = plan.evaluates(state.step)
        if state.evaluation_due or plan.saves(state.step) or stop.requested is not None:
            finite.read()
            if stop.requested is not None:
                save(state, None)
                stop.raise_if_requested(
                    f"stopped after step {state.step} of {plan.steps}; a checkpoint is saved"
                )
            scores = clock.outside(lambda: _evaluate(state, plan, evaluate, save, stop, served_as)) or scores
    return scores


@dataclass(frozen=True)
class Plan:
    """When things happen, in optimizer steps; None: only after the last one."""

    steps: int
    log_every: int
    evaluate_every: int | None
    save_every: int | None

    def evaluates(self, step: int) -> bool:
        return step == self.steps or bool(self.evaluate_every and step % self.evaluate_every == 0)

    def saves(self, step: int) -> bool:
        return bool(self.save_every and step % self.save_every == 0)


def _evaluate(state: RunState, plan: Plan, evaluate: Callable, save: Callable, stop, served_as: Callable):
    """Evaluates if that is due, and saves. A signal during the evaluation saves first; the evaluation then
    stays due."""
    scores = None
    with served_as():
        if state.evaluation_due:
            scores = evaluate(state)
            if stop.requested is not None and scores is None:
                save(state, None)
                stop.raise_if_requested(
                    f"stopped while evaluating after step {state.step} of {plan.steps}; a checkpoint is saved"
                )
            state.evaluation_due = False
        save(state, scores)
    stop.raise_if_requested(f"stopped after step {state.step} of {plan.steps}; a checkpoint is saved")
    state.model.train()
    return scores


def _rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> dict[str, float]:
    """`train/rate`, the base rate times the schedule's factor, and `train/rate/GROUP` of each named parameter
    group where groups learn at different rates."""
    optimizers = list(optimizers)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    base = max(optimizer.defaults["lr"] for optimizer in optimizers) * factor
    if len({group["lr"] for group in groups}) == 1:
        return {"train/rate": base}
    named = {f"train/rate/{group['name']}": group["lr"] for group in groups if "name" in group}
    return {"train/rate": base, **named}


def _log(state: RunState, learning: Learning, clock: Clock, events, plan: Plan) -> None:
    loss = (state.loss_sum / state.loss_weight).item() if state.loss_weight.item() > 0 else 0.0
    rates = _rates(state.optimizers.values(), learning.schedule(state.step - 1))
    rate = rates["train/rate"]
    speed, waited = clock.read()
    numbers = {
        "train/loss": loss,
        **rates,
        "train/images_per_s": round(speed, 2),
        "train/waiting": round(waited, 4),
    }
    if state.scaler.is_enabled():
        numbers["train/scale"] = state.scaler.get_scale()
        if numbers["train/scale"] < 1:
            raise DivergedError(
                f"the fp16 loss scale fell to {numbers['train/scale']} at step {state.step}; use "
                f"trainer.amp=bf16 or none"
            )
    events.log(state.step, numbers)
    events.progress(
        0, {"loss": f"{loss:.4f}", "rate": f"{rate:.2e}", "img/s": f"{speed:.1f}", "waiting": f"{waited:.0%}"}
    )
    state.loss_sum.zero_()
    state.loss_weight.zero_()


class Clock:
    """Images per second and the share of the time spent waiting for data, since the last reading, without
    evaluations."""

    def __init__(self):
        self._start, self._waited, self._images = time.perf_counter(), 0.0, 0

    def waiting(self, get: Callable):
        start = time.perf_counter()
        got = get()
        self._waited += time.perf_counter() - start
        return got

    def outside(self, do: Callable):
        """Runs something that is not training."""
        start = time.perf_counter()
        done = do()
        self._start += time.perf_counter() - start
        return done

    def count(self, images: int) -> None:
        self._images += images

    def read(self) -> tuple[float, float]:
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        result = self._images / elapsed, self._waited / elapsed
        self.__init__()
        return result


def steps_of(settings: Trainer, steps_per_epoch: float) -> int:
    """The optimizer steps of the run, from trainer.steps or trainer.epochs."""
    if (settings.steps is None) == (settings.epochs is None):
        raise ConfigError(
            f"trainer.steps is {settings.steps} and trainer.epochs is {settings.epochs}; give one of them "
            f"and set the other to null"
        )
    steps = (
        settings.steps if settings.steps is not None else math.ceil(settings.epochs * steps_per_epoch - 1e-9)
    )
    if steps < 1:
        raise ConfigError(
            f"trainer.{'steps' if settings.steps is not None else 'epochs'} gives {steps} steps; allowed: "
            f"1 or more"
        )
    return steps


def faster_memory_format(
    model: nn.Module, normalise: Callable, loss: Callable, shape: tuple[int, int, int, int], device
) -> str:
    """ "contiguous" or "channels_last": which one a copy of the network trains faster in, on images of
    `shape` (B, K, H, W).

    One warm-up and three timed passes each. The random state is restored, so the run is the one that names
    the answer.
    """
    before = random_state()
    seconds = {}
    for name, memory_format in MEMORY_FORMATS.items():
        copied = copy.deepcopy(model).to(device, memory_format=memory_format).train()
        images = torch.zeros(shape, dtype=torch.uint8, device=device).contiguous(memory_format=memory_format)
        target = torch.zeros((shape[0], *shape[2:]), dtype=torch.uint8, device=device)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            total, weight = loss(copied(normalise(images)), target)
            (total / weight).backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        seconds[name] = sorted(times[1:])[1]
    restore_random_state(before)
    return min(seconds, key=seconds.get)
