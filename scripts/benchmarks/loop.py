"""What the training loop adds to the steps themselves."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from benchmarks.paired import Enough, Goal, Result, Turns, extra_ms, extra_percent, threads, version
from segtrain.loader.batch import Batch
from segtrain.loss import LOSS
from segtrain.model import MODEL
from segtrain.optimizer import OPTIMIZER
from segtrain.report.trackers import Events
from segtrain.run.stop import Stop
from segtrain.sample import IGNORE, Normalisation, Output
from segtrain.schedule import SCHEDULE
from segtrain.settings import Trainer
from segtrain.train.loop import train
from segtrain.train.plan import Plan
from segtrain.train.state import RunState, new_state
from segtrain.train.step import Learning

NUM_CLASSES = 7
STEPS = 1_000_000  # more than are ever taken: the loop is ended from outside
CPU = torch.device("cpu")


class Pointwise(nn.Module):
    """One 1×1 convolution: next to no work."""

    normalisation = Normalisation((0.5,) * 3, (0.5,) * 3)

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, NUM_CLASSES, 1)

    def forward(self, x: torch.Tensor) -> Output:
        return Output(self.head(x), tuple(x.shape[-2:]))


def on_nothing(quick: bool) -> Result:
    """A network and images of next to nothing, so that the difference to bare steps on the same objects is
    the loop. One thread."""
    with threads(1):
        # A block is as long as the interval between log lines, so each holds one.
        return _against_bare(Pointwise(), side=8, steps=20, pairs=9 if quick else 101, goal=extra_ms(0.1))


def on_small_unet(quick: bool) -> Result:
    """The default network at 128 px, 8 images a step, with torch's own number of threads, against bare steps
    on the same objects."""
    network = MODEL.build({"name": "unet"}, out_channels=NUM_CLASSES, num_classes=NUM_CLASSES, in_channels=3)
    return _against_bare(
        network, side=128, steps=1 if quick else 4, pairs=6 if quick else 60, goal=extra_percent(2)
    )


def _against_bare(network: nn.Module, side: int, steps: int, pairs: int, goal: Goal) -> Result:
    """Both sides take their steps on the same objects."""
    optimizer = OPTIMIZER.build({"name": "adamw"}, network=network)
    state, learning = prepared(network, optimizer, network.normalisation, Trainer())
    batch = random_batch(8, side)

    def bare_step() -> None:
        optimizer.zero_grad()
        total, weight = learning.loss(network(learning.normalise(batch.images)), batch.targets)
        (total / weight).backward()
        optimizer.step()

    turns = Turns(itertools.repeat(batch), bare_step, steps, pairs)
    run(state, learning, turns)
    return Result(f"bare loop, {version('torch')}", turns.ours, turns.theirs, goal)


def random_batch(count: int, side: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, NUM_CLASSES, (count, side, side), dtype=torch.uint8, generator=generator)
    targets[:, :2] = IGNORE
    return Batch(images, targets, [f"{i}.png" for i in range(count)], list(range(count)), count)


def prepared(
    network: nn.Module,
    optimizer,
    normalise: Callable,
    settings: Trainer,
    classes: int = NUM_CLASSES,
    loss: dict | None = None,
    device: torch.device = CPU,
) -> tuple[RunState, Learning]:
    """What `segtrain train` hands to its loop."""
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    learning = Learning(
        loss=LOSS.build(
            loss or {"name": "cross_entropy"}, num_classes=classes, ignore_index=IGNORE, class_frequency=None
        ).to(device),
        normalise=normalise,
        schedule=SCHEDULE.build({"name": "poly"}, steps=STEPS),
        settings=settings,
        device=device,
    )
    return new_state(network, {"network": optimizer}, settings, device), learning


def run(state: RunState, learning: Learning, batches: Iterable) -> None:
    """segtrain's loop until the batches end, with its log files in a temporary folder."""
    plan = Plan(STEPS, learning.settings.log_every, None, None)
    with tempfile.TemporaryDirectory(prefix="segtrain-bench-") as folder:
        events = Events(Path(folder), 0, STEPS)
        try:
            with suppress(Enough):
                train(state, learning, plan, iter(batches), lambda _: None, lambda *_: None, events, Stop())
        finally:
            events.close()
