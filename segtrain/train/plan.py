"""When the loop logs, evaluates and saves, in optimizer steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from segtrain.errors import ConfigError
from segtrain.settings import Loader, Trainer


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


def plan_of(settings: Trainer, loader: Loader, num_samples: int) -> Plan:
    """The plan of a run on `num_samples` training samples."""
    per_epoch = num_samples / loader.batch_size
    return Plan(
        steps_of(settings, per_epoch),
        settings.log_every,
        in_steps(settings.evaluate_every, per_epoch, "trainer.evaluate_every"),
        in_steps(settings.save_every, per_epoch, "trainer.save_every"),
    )


def in_steps(interval: int | str | None, steps_per_epoch: float, where: str) -> int | None:
    """An interval in optimizer steps: a number as it is, '2ep' as that many epochs (at least one step)."""
    if interval is None:
        return None
    given = interval
    if isinstance(interval, str):
        number = interval.removesuffix("ep")
        try:
            count = float(number) * steps_per_epoch if interval.endswith("ep") else 0.0
        except ValueError:
            count = 0.0
        interval = max(1, round(count)) if 0 < count < 2**63 else 0
    if interval < 1:
        raise ConfigError(
            f"{where} is {given}, which is not an interval; allowed: a number of steps from 1, epochs such "
            f"as 1ep, or null"
        )
    return interval
