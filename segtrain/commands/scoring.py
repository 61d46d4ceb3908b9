"""Scoring of a split: one implementation for validation, `evaluate` and `compare`."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn
from tqdm import tqdm

from segtrain.data.joined import without_instances
from segtrain.data.parts import Split
from segtrain.data.resized import Resized
from segtrain.errors import ConfigError, printable
from segtrain.evaluate import loop as evaluation
from segtrain.evaluate.loop import Scores, spread
from segtrain.evaluate.rules import Rules, protocol_of, rules_of
from segtrain.loader.loader import evaluation_batches
from segtrain.metric import METRIC
from segtrain.options import path_options
from segtrain.predictor.prediction import Prediction
from segtrain.predictor.predictor import Predictor
from segtrain.report.sheet import sheet
from segtrain.run.saved import relocated
from segtrain.sample import Facts, Number, ScoreDict
from segtrain.settings import EvaluateSettings, PredictorSettings


def score_split(
    run: Scoring,
    model: nn.Module,
    split,
    device,
    stop,
    progress: str,
    num_batches: int | None = None,
    kept: Collection[str] = (),
) -> Scores:
    """The scores of a split, or of its first `num_batches` batches; Interrupted if a signal arrives. kept:
    see `segtrain.evaluate.loop.evaluate`."""
    interrupt = functools.partial(stop.raise_if_requested, "stopped while evaluating")
    if not any("instances" in metric.needs for metric in run.metrics.values()):
        split = without_instances(split)
    split = run.sized(split)
    predict = run.predictor(model, device, interrupt)
    bar = tqdm(total=len(split), unit="image", desc=printable(progress), leave=False, disable=None)

    pixels = 0

    def counted(batches):
        nonlocal pixels
        for batch in itertools.islice(batches, num_batches):
            pixels += _labelled(batch.targets[: batch.count], run.facts.ignore_index)
            yield batch
            bar.update(batch.count)
            interrupt()

    batches = evaluation_batches(
        split, run.settings.batch_size, run.settings.workers, run.facts.ignore_index, interrupt
    )
    start = time.perf_counter()
    try:
        shown = spread(len(split), run.settings.pictures)
        scores = evaluation.evaluate(
            predict, run.task.decide, run.metrics, counted(batches), device, shown, kept, run.decide
        )
    finally:
        bar.close()
        batches.close()
    evaluation.warn_of_no_label(scores.protocol["images"], pixels)
    protocol = {
        **scores.protocol,
        "pixels": pixels,
        "only_class": run.only_class(scores),
        "labels_without_pixels": run.labels_without_pixels(scores),
        **run.prediction.protocol(model),
        "ignore_index": run.facts.ignore_index,
        **run.protocol(),
        "metric": run.metric,
        "seconds": round(time.perf_counter() - start, 2),
    }
    return replace(scores, protocol=protocol)


def _labelled(targets: Tensor, ignore_index: int) -> int:
    """Number of target values (of pixels, where a pixel has one) with a label."""
    known = ~targets.isnan() if targets.is_floating_point() else targets != ignore_index
    return int(known.sum())


def contact_sheet(scores: Scores, facts: Facts, task, title: str):
    """The contact sheet of an evaluation, with its score in the title."""
    score = scores.value(task.score)
    title += "" if score is None else f", {task.score} {score:.4f}"
    return sheet(scores.pictures, facts, task.picture, task.errors, title)


@dataclass(frozen=True)
class Scoring:
    """Everything that determines the scores of a network: task, metrics, predictor and evaluation
    settings."""

    task: object
    facts: Facts
    metrics: dict
    metric: dict
    settings: EvaluateSettings
    rules: Rules
    prediction: Prediction

    def sized(self, split: Split) -> Split:
        """The split with images and labels of the size at which the rules score."""
        side = self.rules.short_side
        return split if side is None else Resized(split, side)

    def with_intervals(self, resamples: int) -> list[str]:
        """Names of the metrics whose counts of every image are needed for intervals of as many resamples."""
        return [name for name, metric in self.metrics.items() if resamples and hasattr(metric, "resampled")]

    def protocol(self) -> dict:
        """The rules, for the protocol of scores."""
        return protocol_of(self.rules, self.settings)

    @property
    def decide(self) -> Callable[[Tensor, ScoreDict], Tensor] | None:
        """(probabilities, the scores with the thresholds that they were fitted to) -> predictions; None for a
        task whose decisions wait for no scores."""
        if not self.task.fits_thresholds:
            return None
        return lambda probabilities, numbers: self.task.at(thresholds_in(numbers)).decide(probabilities)

    def only_class(self, scores: Scores) -> str | None:
        """The name of the class that all labelled pixels have; None if there are several, or no counts of
        the metric `confusion`."""
        counts = scores.totals.get("confusion")
        labelled = [] if counts is None else counts.sum(dim=1).nonzero().flatten().tolist()
        return self.facts.classes[labelled[0]] if len(labelled) == 1 else None

    def labels_without_pixels(self, scores: Scores) -> list[str]:
        """The names of the labels that no scored pixel has (task=binary: of the foreground); [] without
        counts of the metrics `foreground` and `labels`."""
        counts = scores.totals.get("foreground", scores.totals.get("labels"))  # T×2×BINS
        if counts is None:
            return []
        names = self.facts.classes[-len(counts) :]  # background is no label
        pixels = counts[:, 1].sum(1).tolist()
        return [name for name, number in zip(names, pixels, strict=True) if not number]

    def predictor(self, model: nn.Module, device, interrupt=lambda: None) -> Predictor:
        """The predictor of a network: images to probabilities. ConfigError for settings that the network
        cannot run with."""
        return self.prediction.of(model, self.facts, self.task, device, interrupt)


def prediction_of(config: Mapping, run: str | None = None, description: Mapping | None = None) -> Prediction:
    """The prediction of the sections `predictor` and `tta`. run, description: of the run that they come from,
    as for `segtrain.commands.dataset.data_of`."""
    settings = config["predictor"]
    if run is not None:
        saved = description["config"].get("predictor") or {}
        settings = relocated(settings, saved, path_options(PredictorSettings), Path(run))
    prediction = Prediction(settings, config["tta"])
    if description is not None:
        prediction.warn_of_sides(description["facts"]["classes"])
    return prediction


def scoring_of(config: Mapping, task, facts: Facts, prediction: Prediction | None = None) -> Scoring:
    """The scoring of a config. An empty `metric` group means the metrics of the task.

    prediction: of the same config, if one exists already with its second network loaded.
    """
    settings = EvaluateSettings(**config["evaluate"])
    rules = rules_of(settings, config["data"])
    chosen = chosen_metrics(config["metric"], rules, task)
    metrics = built_metrics(chosen, facts, rules.absent or settings.absent, task=task)
    return Scoring(task, facts, metrics, chosen, settings, rules, prediction or prediction_of(config))


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
    if task.target.labels and not task.target.classes:
        raise ConfigError(
            f"metric.{name} scores one class a pixel, and a pixel of task={task.name} has any number of "
            f"labels; use metric=[{','.join(task.metrics)}]"
        )
    if task.fits_thresholds:
        raise ConfigError(
            f"metric.{name} scores decisions, and the threshold of task={task.name} is fitted only by the "
            f"evaluation itself; set task.threshold=0.5, or give this metric to segtrain evaluate"
        )


def thresholds_in(numbers: ScoreDict) -> list[float] | None:
    """The thresholds of the labels among the scores; None if there are none."""
    found = numbers.get("threshold")
    if found is None:
        return None
    return [found.value] if isinstance(found, Number) else list(found.values)


def check_score(scoring: Scoring) -> None:
    """ConfigError unless the chosen metrics include those of the task, which select the best checkpoint."""
    missing = [name for name in scoring.task.metrics if name not in scoring.metric]
    if missing:
        chosen = ",".join([*missing, *scoring.metric])
        raise ConfigError(
            f"metric=[{','.join(scoring.metric)}] lacks {missing[0]}, which gives the score of "
            f"task={scoring.task.name}; use metric=[{chosen}]"
        )
