"""Scoring of a network on a split, the same for validation, `evaluate` and `compare`."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn
from tqdm import tqdm

from segtrain.data import DATA
from segtrain.data.parts import Data
from segtrain.errors import ConfigError, nearest, printable
from segtrain.evaluate import loop as evaluation
from segtrain.evaluate.loop import Scores, spread
from segtrain.loader.loader import evaluation_batches
from segtrain.metric import METRIC
from segtrain.options import path_options
from segtrain.predictor.prediction import Prediction
from segtrain.predictor.predictor import Predictor
from segtrain.report.sheet import sheet
from segtrain.run.record import read_record
from segtrain.run.saved import relocated
from segtrain.sample import Facts, Target
from segtrain.settings import EvaluateSettings


def score_split(
    run: Scoring, model: nn.Module, split, device, stop, progress: str, num_batches: int | None = None
) -> Scores:
    """The scores on a split, or on its first `num_batches` batches. Interrupted if a signal came
    meanwhile."""
    interrupt = functools.partial(stop.raise_if_requested, "stopped while evaluating")
    predict = run.predictor(model, device, interrupt)
    bar = tqdm(total=len(split), unit="image", desc=printable(progress), leave=False, disable=None)

    def counted(batches):
        for batch in itertools.islice(batches, num_batches):
            yield batch
            bar.update(batch.count)
            interrupt()

    batches = evaluation_batches(
        split, run.settings.batch_size, run.settings.workers, run.facts.ignore_index, interrupt
    )
    start = time.perf_counter()
    try:
        shown = spread(len(split), run.settings.pictures)
        scores = evaluation.evaluate(predict, run.task.decide, run.metrics, counted(batches), device, shown)
    finally:
        bar.close()
        batches.close()
    protocol = {
        **scores.protocol,
        **run.prediction.protocol(model),
        "ignore_index": run.facts.ignore_index,
        "absent": run.settings.absent,
        "metric": run.metric,
        "seconds": round(time.perf_counter() - start, 2),
    }
    return replace(scores, protocol=protocol)


def contact_sheet(scores: Scores, facts: Facts, task, title: str):
    """The contact sheet of an evaluation, with its score in the title."""
    score = scores.value(task.score)
    title += "" if score is None else f", {task.score} {score:.4f}"
    return sheet(scores.pictures, facts, task.picture, task.errors, title)


@dataclass(frozen=True)
class Scoring:
    """All that determines the scores of a network on given data.

    metrics: the built metrics by name. metric: their config.
    """

    task: object
    facts: Facts
    metrics: dict
    metric: dict
    settings: EvaluateSettings
    prediction: Prediction

    def predictor(self, model: nn.Module, device, between=lambda: None) -> Predictor:
        """The predictor, images -> probabilities, of a network. ConfigError for settings that the network
        does not support."""
        return self.prediction.of(model, self.facts, self.task, device, between)


def prediction_of(config: Mapping) -> Prediction:
    """The settings of the sections `predictor` and `tta`."""
    return Prediction(config["predictor"], config["tta"])


def scoring_of(config: Mapping, task, facts: Facts, prediction: Prediction | None = None) -> Scoring:
    """The scoring that the config describes; `metric: {}` stands for the metrics of the task.

    prediction: reused in place of a new one, because it holds the second network (predictor.ensemble) that it
    has read.
    """
    settings = EvaluateSettings(**config["evaluate"])
    chosen = dict(config["metric"]) or dict(task.metrics)
    runtime = {"num_classes": facts.num_classes, "ignore_index": facts.ignore_index, "facts": facts}
    built = METRIC.build_each(chosen, absent=settings.absent, **runtime)
    metrics = dict(zip(METRIC.check_each(chosen), built, strict=True))
    return Scoring(task, facts, metrics, chosen, settings, prediction or prediction_of(config))


def check_score(scoring: Scoring) -> None:
    """ConfigError unless the chosen metrics include those of the task, which give the score that picks the
    best checkpoint."""
    missing = [name for name in scoring.task.metrics if name not in scoring.metric]
    if missing:
        chosen = ",".join([*missing, *scoring.metric])
        raise ConfigError(
            f"metric=[{','.join(scoring.metric)}] lacks {missing[0]}, by which task={scoring.task.name} "
            f"picks the best checkpoint; use metric=[{chosen}]"
        )


def data_of(config: Mapping, run: str, description: Mapping, target: Target) -> Data:
    """The data set of a run. Its relative paths begin in the current directory or, if they do not exist
    there, in the directory that the run was started in, which the error names if they exist in neither."""
    paths = path_options(DATA.factory(config["data"]["name"]))
    try:
        return DATA.build(relocated(config["data"], paths, Path(run)), target=target)
    except ConfigError as error:
        saved, started = description["config"]["data"], _started_in(run)
        kept = (
            value
            for key, value in config["data"].items()
            if key in paths and value and isinstance(value, str) and value == saved.get(key)
        )
        lost = any(f"'{value}" in str(error) and not Path(value).is_absolute() for value in kept)
        if lost and started is not None and Path(started) != Path.cwd():
            error.args = (
                f"{error}; {run} was started in {started}, where its relative paths begin: go there or "
                f"give the path anew",
            )
        raise


def _started_in(run: str) -> str | None:
    """The directory that the training was started in; None if it is not on record."""
    return read_record(Path(run)).get("directory")


def split_of(data: Data, name: str):
    if name not in data.splits:
        raise ConfigError(
            f"split={name} does not exist{nearest(name, data.splits)}; there are "
            f"{', '.join(sorted(data.splits))}"
        )
    return data.splits[name]
