"""The plan of a run: its length and when it logs, evaluates and saves, in optimizer steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from segtrain.errors import ConfigError
from segtrain.settings import Trainer
from segtrain.text import show


@dataclass(frozen=True)
class Plan:
    """The length of a run and its intervals in optimizer steps. An interval of None: only after the last
    step."""

    steps: int
    log_every: int
    evaluate_every: int | None
    save_every: int | None

    def evaluates(self, step: int) -> bool:
        return step == self.steps or bool(self.evaluate_every and step % self.evaluate_every == 0)

    def saves(self, step: int) -> bool:
        return bool(self.save_every and step % self.save_every == 0)


ONE_STEP = Plan(1, log_every=1, evaluate_every=None, save_every=None)
"""Of a dry run, and of a network that is fitted in one call."""


def steps_of(settings: Trainer, steps_per_epoch: float) -> int:
    """The number of optimizer steps of a run, from trainer.steps or trainer.epochs. ConfigError if neither is
    set, or if both are set and disagree."""
    steps = settings.steps
    if settings.epochs is not None:
        steps = max(1, math.ceil(settings.epochs * steps_per_epoch - 1e-9))
    if steps is None or settings.steps not in (None, steps):
        raise ConfigError(
            f"trainer.steps is {show(settings.steps)} and trainer.epochs is {show(settings.epochs)}"
            f"{'' if steps is None else f' ({steps} steps)'}; give one of them and set the other to null"
        )
    return steps


def plan_of(settings: Trainer) -> Plan:
    """The plan of settled settings, whose intervals are in optimizer steps."""
    return Plan(settings.steps, settings.log_every, settings.evaluate_every, settings.save_every)


def in_steps(interval: int | str | None, steps_per_epoch: float, where: str) -> int | None:
    """The interval in optimizer steps: an integer as it is, '2ep' as two epochs (at least one step), None as
    None. ConfigError for anything else."""
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
