"""Scoring of a split: one implementation for validation, `evaluate` and `compare`."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn
from tqdm import tqdm

from segtrain import ranks
from segtrain.commands.metrics import built_metrics, chosen_metrics, resampled_metrics
from segtrain.data.joined import without_instances
from segtrain.data.parts import Split
from segtrain.data.resized import Resized
from segtrain.errors import ConfigError, printable
from segtrain.evaluate import loop as evaluation
from segtrain.evaluate.interval import Intervals, intervals
from segtrain.evaluate.loop import Scores, evenly_spaced
from segtrain.evaluate.rules import Rules, protocol_of, rules_of
from segtrain.evaluate.units import units_of
from segtrain.loader.loader import evaluation_batches
from segtrain.predictor.inference import Inference, inference_of
from segtrain.predictor.predictor import Predictor
from segtrain.sample import Facts, Number, ScoreDict
from segtrain.settings import EvaluateSettings


def score_split(
    scoring: Scoring,
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
    if not any("instances" in metric.needs for metric in scoring.metrics.values()):
        split = without_instances(split)
    split = scoring.sized(split)
    predict = scoring.predictor(model, device, interrupt)
    bar = tqdm(total=len(split), unit="image", desc=printable(progress), leave=False, disable=None)

    pixels = 0

    def meet() -> None:
        stop.agree()
        interrupt()

    def counted(batches):
        nonlocal pixels
        for batch in ranks.in_step(itertools.islice(batches, num_batches), meet):
            pixels += _labelled(batch.targets[: batch.count], scoring.facts.ignore_index)
            yield batch
            bar.update(batch.count * ranks.world_size())

    batches = evaluation_batches(
        split, scoring.settings.batch_size, scoring.settings.workers, scoring.facts.ignore_index, interrupt
    )
    start = time.perf_counter()
    try:
        shown = evenly_spaced(len(split), scoring.settings.pictures)
        scores = evaluation.evaluate(
            predict,
            scoring.task.decide,
            scoring.metrics,
            counted(batches),
            device,
            shown,
            kept,
            scoring.decide_at_thresholds,
        )
    finally:
        bar.close()
        batches.close()
    pixels = sum(ranks.all_gather(pixels))
    evaluation.warn_of_no_label(scores.protocol["images"], pixels)
    protocol = {
        **scores.protocol,
        "pixels": pixels,
        "only_class": scoring.only_class(scores),
        "labels_without_pixels": scoring.labels_without_pixels(scores),
        **scoring.inference.protocol(model),
        "ignore_index": scoring.facts.ignore_index,
        **scoring.protocol(),
        "metric": scoring.metric_options,
        "seconds": round(time.perf_counter() - start, 2),
    }
    return replace(scores, protocol=protocol)


def _labelled(targets: Tensor, ignore_index: int) -> int:
    """Number of target values (of pixels, where a pixel has one) with a label."""
    known = ~targets.isnan() if targets.is_floating_point() else targets != ignore_index
    return int(known.sum())


@dataclass(frozen=True)
class Scoring:
    """Everything that determines the scores of a network.

    metrics: {name: metric}. metric_options: {name: options} that they were built with. rules: of
    `evaluate.protocol`. inference: how the network is run.
    """

    task: object
    facts: Facts
    metrics: dict
    metric_options: dict
    settings: EvaluateSettings
    rules: Rules
    inference: Inference

    def sized(self, split: Split) -> Split:
        """The split with images and labels of the size at which the rules score."""
        side = self.rules.short_side
        return split if side is None else Resized(split, side)

    def resampled_metrics(self, resamples: int) -> list[str]:
        """See `segtrain.commands.metrics.resampled_metrics`."""
        return resampled_metrics(self.metrics, resamples)

    def intervals(self, scores: Scores, split: Split, resamples: int) -> Intervals:
        """The intervals of the scores of `split`, as it was given to `score_split`."""
        return intervals(self.metrics, scores, units_of(split), resamples)

    def protocol(self) -> dict:
        """The rules, for the protocol of scores."""
        return protocol_of(self.rules, self.settings)

    @property
    def decide_at_thresholds(self) -> Callable[[Tensor, ScoreDict], Tensor] | None:
        """(probabilities, scores with the thresholds that the evaluation has fitted) -> predictions; None for
        a task whose thresholds need no fitting."""
        if not self.task.fits_thresholds:
            return None
        return lambda probabilities, numbers: self.task.with_thresholds(thresholds_in(numbers)).decide(
            probabilities
        )

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
        return self.inference.predictor_of(model, self.facts, self.task, device, interrupt)


def scoring_of(config: Mapping, task, facts: Facts, inference: Inference | None = None) -> Scoring:
    """The scoring of a config. An empty `metric` group means the metrics of the task.

    inference: of the same config, where it exists already, so that its ensemble members are read once.
    """
    settings = EvaluateSettings(**config["evaluate"])
    rules = rules_of(settings, config["data"])
    chosen = chosen_metrics(config["metric"], rules, task)
    metrics = built_metrics(chosen, facts, rules.absent or settings.absent, task=task)
    return Scoring(task, facts, metrics, chosen, settings, rules, inference or inference_of(config))


def scoring_of_run(config: Mapping, task, facts: Facts, description: Mapping) -> Scoring:
    """The scoring of a config that was composed over the saved one of config["run"]. description: of the
    run's checkpoint."""
    return scoring_of(config, task, facts, inference_of(config, config["run"], description))


def thresholds_in(numbers: ScoreDict) -> list[float] | None:
    """The thresholds of the labels among the scores; None if there are none."""
    found = numbers.get("threshold")
    if found is None:
        return None
    return [found.value] if isinstance(found, Number) else list(found.values)


def check_score(scoring: Scoring) -> None:
    """ConfigError unless the chosen metrics include those of the task, which select the best checkpoint; or
    for evaluate.tta_report, which only `segtrain evaluate` writes."""
    if scoring.settings.tta_report:
        raise ConfigError(
            "evaluate.tta_report=true is for segtrain evaluate alone; use evaluate.tta_report=false here"
        )
    missing = [name for name in scoring.task.metrics if name not in scoring.metric_options]
    if missing:
        chosen = ",".join([*missing, *scoring.metric_options])
        raise ConfigError(
            f"metric=[{','.join(scoring.metric_options)}] lacks {missing[0]}, which gives the score of "
            f"task={scoring.task.name}; use metric=[{chosen}]"
        )
