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
    step. patience: evaluations in a row without a better score after which the run ends; None: it never ends
    early."""

    steps: int
    log_every: int
    evaluate_every: int | None
    save_every: int | None
    patience: int | None = None

    def is_over(self, step: int, worse: int) -> bool:
        """Whether no step follows. worse: evaluations since the best score."""
        return step >= self.steps or (self.patience is not None and worse >= self.patience)

    def evaluates(self, step: int) -> bool:
        return step == self.steps or bool(self.evaluate_every and step % self.evaluate_every == 0)

    def saves(self, step: int) -> bool:
        return bool(self.save_every and step % self.save_every == 0)


ONE_STEP = Plan(1, log_every=1, evaluate_every=None, save_every=None)
"""Of a dry run, and of a network that is fitted in one call."""
EPOCHS, LEAST_STEPS = 20, 1000
"""Length of a run that nobody has set: so many epochs, but at least so many steps. With a few dozen images,
epochs are so short that 20 of them teach a network nothing but the commonest class."""
LEAST_DISTANCE = 50
"""Steps between two evaluations with evaluate_every=auto, at least: on a small data set, once an epoch would
spend most of the time on evaluations."""


def check_length(settings: Trainer) -> None:
    """ConfigError if a run of trainer.minutes has another length too."""
    for key in ("steps", "epochs"):
        if getattr(settings, key) is not None:
            raise ConfigError(
                f"trainer.minutes is {show(settings.minutes)} and trainer.{key} is "
                f"{show(getattr(settings, key))}; give one of them and set the other to null"
            )


def steps_of(settings: Trainer, steps_per_epoch: float) -> int:
    """The number of optimizer steps of a run, from trainer.steps or trainer.epochs; with neither, EPOCHS
    epochs and at least LEAST_STEPS. ConfigError if both are set and disagree."""
    steps = settings.steps
    if settings.epochs is not None:
        steps = _in_whole_steps(settings.epochs, steps_per_epoch)
    if steps is None:
        return max(LEAST_STEPS, _in_whole_steps(EPOCHS, steps_per_epoch))
    if settings.steps not in (None, steps):
        raise ConfigError(
            f"trainer.steps is {show(settings.steps)} and trainer.epochs is {show(settings.epochs)} ({steps} "
            f"steps); give one of them and set the other to null"
        )
    return steps


def _in_whole_steps(epochs: float, steps_per_epoch: float) -> int:
    return max(1, math.ceil(epochs * steps_per_epoch - 1e-9))


def about_length(settings: Trainer, steps_per_epoch: float) -> str:
    """For the line of the plan: why the run is longer than EPOCHS epochs if nobody has set its length; else
    empty."""
    short = _in_whole_steps(EPOCHS, steps_per_epoch)
    if (settings.steps, settings.epochs, settings.minutes) != (None, None, None) or short >= LEAST_STEPS:
        return ""
    return f" ({EPOCHS} epochs would be {short} steps; at least {LEAST_STEPS} unless trainer.epochs is set)"


def plan_of(settings: Trainer) -> Plan:
    """The plan of settled settings, whose intervals are in optimizer steps."""
    return Plan(
        settings.steps, settings.log_every, settings.evaluate_every, settings.save_every, settings.patience
    )


def in_steps(interval: int | str | None, steps_per_epoch: float, where: str) -> int | None:
    """The interval in optimizer steps: an integer as it is, '2ep' as two epochs (at least one step), 'auto'
    as an epoch, but at least LEAST_DISTANCE, None as None. ConfigError for anything else."""
    if interval is None:
        return None
    if interval == "auto":
        return max(LEAST_DISTANCE, round(steps_per_epoch))
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
            f"as 1ep, auto, or null"
        )
    return interval
