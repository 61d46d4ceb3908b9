"""Scoring of a split: one implementation for validation, `evaluate` and `compare`."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn
from tqdm import tqdm

from segtrain.data import DATA
from segtrain.data.joined import Joined
from segtrain.data.parts import Data, Split
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
from segtrain.settings import EvaluateSettings, PredictorSettings


def score_split(
    run: Scoring, model: nn.Module, split, device, stop, progress: str, num_batches: int | None = None
) -> Scores:
    """The scores of a split, or of its first `num_batches` batches; Interrupted if a signal arrives."""
    interrupt = functools.partial(stop.raise_if_requested, "stopped while evaluating")
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
        scores = evaluation.evaluate(predict, run.task.decide, run.metrics, counted(batches), device, shown)
    finally:
        bar.close()
        batches.close()
    protocol = {
        **scores.protocol,
        "pixels": pixels,
        **run.prediction.protocol(model),
        "ignore_index": run.facts.ignore_index,
        "absent": run.settings.absent,
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
    prediction: Prediction

    def predictor(self, model: nn.Module, device, interrupt=lambda: None) -> Predictor:
        """The predictor of a network: images to probabilities. ConfigError for settings that the network
        cannot run with."""
        return self.prediction.of(model, self.facts, self.task, device, interrupt)


def prediction_of(config: Mapping, run: str | None = None, description: Mapping | None = None) -> Prediction:
    """The prediction of the sections `predictor` and `tta`. run, description: of the run that they come from,
    as for `data_of`."""
    settings = config["predictor"]
    if run is not None:
        saved = description["config"].get("predictor") or {}
        settings = relocated(settings, saved, path_options(PredictorSettings), Path(run))
    return Prediction(settings, config["tta"])


def scoring_of(config: Mapping, task, facts: Facts, prediction: Prediction | None = None) -> Scoring:
    """The scoring of a config. An empty `metric` group means the metrics of the task.

    prediction: of the same config, if one exists already with its second network loaded.
    """
    settings = EvaluateSettings(**config["evaluate"])
    chosen = dict(config["metric"]) or dict(task.metrics)
    runtime = {"num_classes": facts.num_classes, "ignore_index": facts.ignore_index, "facts": facts}
    built = METRIC.build_each(chosen, absent=settings.absent, **runtime)
    metrics = dict(zip(METRIC.check_each(chosen), built, strict=True))
    return Scoring(task, facts, metrics, chosen, settings, prediction or prediction_of(config))


def check_score(scoring: Scoring) -> None:
    """ConfigError unless the chosen metrics include those of the task, which select the best checkpoint."""
    missing = [name for name in scoring.task.metrics if name not in scoring.metric]
    if missing:
        chosen = ",".join([*missing, *scoring.metric])
        raise ConfigError(
            f"metric=[{','.join(scoring.metric)}] lacks {missing[0]}, which gives the score of "
            f"task={scoring.task.name}; use metric=[{chosen}]"
        )


def data_of(config: Mapping, run: str, description: Mapping, target: Target) -> Data:
    """The data set of a run. Its relative paths begin in the current directory or, if they do not exist
    there, in the directory that the run was started in, which the error names if they exist in neither."""
    data, saved = config["data"], description["config"]["data"]
    paths = path_options(DATA.factory(data["name"]))
    try:
        return DATA.build(relocated(data, saved, paths, Path(run)), target=target)
    except ConfigError as error:
        started = read_record(Path(run)).get("directory")
        kept = [data[name] for name in paths if isinstance(data[name], str) and data[name] == saved.get(name)]
        lost = any(f"'{path}" in str(error) and not Path(path).is_absolute() for path in kept)
        if lost and started is not None and Path(started) != Path.cwd():
            error.args = (
                f"{error}; {run} was started in {started}, where its relative paths begin: go there or "
                f"give the path anew",
            )
        raise


def split_of(data: Data, name: str) -> Split:
    """The split of that name; "all" is all of them, in their order."""
    if name == "all" and name not in data.splits:
        return Joined(list(data.splits.values()))
    if name not in data.splits:
        names = [*sorted(data.splits), "all"]
        raise ConfigError(f"split={name} does not exist{nearest(name, names)}; there are {', '.join(names)}")
    return data.splits[name]
