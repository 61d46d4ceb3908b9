"""Learning-rate schedules: optimizer step (0, 1, …) -> factor of the base learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from segtrain.errors import ConfigError
from segtrain.options import FROM_0, NOT_NEGATIVE, WITHIN_0_1, between

Schedule = Callable[[int], float]


def _with_warmup(curve: Callable[[float], float], steps: int, warmup: int) -> Schedule:
    """Linear warmup over `warmup` steps, then `curve(share)`, where share goes from 0 to below 1 over the
    remaining steps. ConfigError if none remain."""
    if warmup >= steps:
        raise ConfigError(
            f"schedule.warmup is {warmup} steps; allowed: from 0 to below the run's {steps} steps"
        )

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return curve((step - warmup) / (steps - warmup))

    return factor


def poly(
    steps: int,
    power: Annotated[float, NOT_NEGATIVE] = 0.9,
    floor: Annotated[float, between(0, 1)] = 0.0,
    warmup: Annotated[int, FROM_0] = 0,
) -> Schedule:
    """Polynomial decay, (1 - step / steps)^power (DeepLab, Chen et al. 2017).

    Options:
        power: exponent
        floor: smallest factor of the base learning rate
        warmup: steps of linear warmup
    """
    return _with_warmup(lambda share: max((1 - share) ** power, floor), steps, warmup)


def cosine(
    steps: int, floor: Annotated[float, between(0, 1)] = 0.0, warmup: Annotated[int, FROM_0] = 0
) -> Schedule:
    """Cosine annealing from 1 to the floor (Loshchilov & Hutter 2017, without restarts).

    Options:
        floor: factor of the base learning rate at the end
        warmup: steps of linear warmup
    """
    return _with_warmup(
        lambda share: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)), steps, warmup
    )


def step(
    steps: int,
    at: tuple[Annotated[float, WITHIN_0_1], ...] = (0.5, 0.75),
    factor: Annotated[float, between(0, 1)] = 0.1,
    warmup: Annotated[int, FROM_0] = 0,
) -> Schedule:
    """Step decay: the learning rate is multiplied by a factor at certain points of the run.

    Options:
        at: these points, as fractions of the steps after the warmup
        factor: multiplier of the learning rate at each point
        warmup: steps of linear warmup
    """
    return _with_warmup(lambda share: factor ** sum(share >= point for point in at), steps, warmup)


def constant(steps: int, warmup: Annotated[int, FROM_0] = 0) -> Schedule:
    """Constant learning rate.

    Options:
        warmup: steps of linear warmup
    """
    return _with_warmup(lambda share: 1.0, steps, warmup)
