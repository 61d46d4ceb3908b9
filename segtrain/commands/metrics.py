"""The metrics of a config, checked against the task."""

from __future__ import annotations

from collections.abc import Mapping

from segtrain.errors import ConfigError
from segtrain.evaluate.rules import Rules
from segtrain.metric import METRIC
from segtrain.sample import Facts


def chosen_metrics(metric: Mapping, rules: Rules, task) -> dict:
    """The metrics of a config and those of the rules. metric: the group; empty: the metrics of the task."""
    chosen = dict(metric) or dict(task.metrics)
    return chosen | {name: {} for name in rules.metrics if name not in chosen}


def built_metrics(
    chosen: Mapping, facts: Facts, absent: str, num_answers: int | None = None, task=None
) -> dict:
    """The metrics by name. num_answers: see `segtrain.metric.confusion.Confusion`. task: whose predictions
    are scored; None: masks of classes are. ConfigError for a metric that does not go with the task."""
    runtime = {"num_classes": facts.num_classes, "ignore_index": facts.ignore_index, "facts": facts}
    if task is not None:
        runtime |= {"target": task.target, "thresholds": task.thresholds}
    built = METRIC.build_each(chosen, absent=absent, num_answers=num_answers, **runtime)
    metrics = dict(zip(METRIC.check_each(chosen), built, strict=True))
    for name, metric in metrics.items():
        if task is not None and "decisions" in metric.needs:
            _check_decisions(name, task)
    return metrics


def _check_decisions(name: str, task) -> None:
    """ConfigError for a metric of decisions where the task has none that it could score."""
    if task.target.multilabel:
        raise ConfigError(
            f"metric.{name} scores one class a pixel, and a pixel of task={task.name} has any number of "
            f"labels; use metric=[{','.join(task.metrics)}]"
        )
    if task.fits_thresholds:
        raise ConfigError(
            f"metric.{name} scores decisions, and the threshold of task={task.name} is fitted only by the "
            f"evaluation itself; set task.threshold=0.5, or give this metric to segtrain evaluate"
        )


def resampled_metrics(metrics: Mapping[str, object], resamples: int) -> list[str]:
    """Names of the metrics that give intervals, whose counts of every image are kept for this; none with
    resamples=0."""
    return [name for name, metric in metrics.items() if resamples and hasattr(metric, "resampled")]
