"""The swept keys of a sweep as axes, and how much each of them matters for the score."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segtrain.sweep.results import Results
from segtrain.sweep.trial import Trial

MIN_TRIALS = 4
"""Finished trials below which no importance is estimated."""
WIDE = 100
"""Largest over smallest value, from which a scale without a sign is logarithmic."""


@dataclass(frozen=True)
class Parameter:
    """A swept key. choices: its values in order of appearance, if they are not all numbers; else low, high:
    the least and the greatest, and log: whether they belong on a logarithmic scale."""

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    def value(self, text: str) -> str | float:
        """A value of a trial: as it is if the key has choices, else the number."""
        return text if self.choices else float(text)

    def position(self, value: str | float) -> float:
        """The position of a value on the axis, 0 to 1."""
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        if self.low == self.high:
            return 0.5
        ends = (self.low, float(value), self.high)
        low, value, high = map(math.log, ends) if self.log else ends
        return (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """(position, label) of the marks of the axis."""
        if self.choices:
            return [(self.position(one), one) for one in self.choices]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        values = [self.low] if self.low == self.high else [self.low, middle, self.high]
        return [(self.position(value), f"{value:.3g}") for value in values]


def parameters(trials: Sequence[Trial], over: Mapping[str, str] | None = None) -> list[Parameter]:
    """The swept keys of trials. over: {key: what it was swept over}."""
    texts: dict[str, list[str]] = {}
    for trial in trials:
        for key, text in trial.swept.items():
            texts.setdefault(key, []).append(text)
    return [_parameter(key, found, (over or {}).get(key, "")) for key, found in texts.items()]


def _parameter(key: str, texts: list[str], swept_over: str) -> Parameter:
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return Parameter(key, tuple(dict.fromkeys(texts)))
    if not all(map(math.isfinite, numbers)):
        return Parameter(key, tuple(dict.fromkeys(texts)))
    low, high = min(numbers), max(numbers)
    log = low > 0 and (swept_over.startswith("tag(log") or high / low >= WIDE)
    return Parameter(key, (), low, high, log)


def importance(results: Results) -> tuple[dict[str, float], str]:
    """The importance of each swept key, and why there is none, or an empty string.

    By fANOVA (Hutter et al. 2014): the shares, summing to 1, of the variance of the score that a random
    forest fitted to the finished trials explains by each key.
    """
    finished = sorted(results.finished(), key=lambda trial: trial.number)
    axes = [one for one in parameters(finished) if len(one.choices) > 1 or one.low < one.high]
    if len(finished) < MIN_TRIALS:
        return {}, f"fewer than {MIN_TRIALS} trials are finished"
    if len({trial.best.value for trial in finished}) == 1:
        return {}, "all finished trials have the same score"
    if len(axes) < 2:
        return {one.key: 1.0 for one in axes}, ""
    try:
        optuna = importlib.import_module("optuna")
        importlib.import_module("sklearn")
    except ImportError:
        return {}, "Optuna or scikit-learn is not installed; run: pip install 'segtrain[sweep]'"
    shares = _fanova(finished, axes, optuna)
    return (shares, "") if shares else ({}, "fANOVA finds no differences in these scores and values")


def _fanova(finished: list[Trial], axes: list[Parameter], optuna) -> dict[str, float]:
    """The importance of the keys; {} where the random forest finds no differences."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    space = {one.key: _distribution(one, optuna.distributions) for one in axes}
    for trial in finished:
        values = {one.key: one.value(trial.swept[one.key]) for one in axes}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=trial.best.value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (RuntimeError, ValueError, ArithmeticError, AssertionError):
            return {}  # scores or values that differ by less than the random forest can tell
    if not all(map(math.isfinite, shares.values())):
        return {}
    return {key: float(share) for key, share in shares.items()}


def _distribution(axis: Parameter, distributions):
    if axis.choices:
        return distributions.CategoricalDistribution(axis.choices)
    return distributions.FloatDistribution(axis.low, axis.high)
