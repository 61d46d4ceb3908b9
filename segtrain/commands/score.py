"""`segtrain score`: the scores of predicted masks, whatever program wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from segtrain.commands.dataset import split_of
from segtrain.commands.scoring import built_metrics, chosen_metrics
from segtrain.data import DATA
from segtrain.data.files.predictions import (
    Pair,
    Reading,
    labels_of,
    matched,
    pair,
    read_prediction,
    reading_of,
)
from segtrain.data.parts import Split
from segtrain.errors import ConfigError
from segtrain.evaluate import conventions
from segtrain.evaluate.loop import Scores, warn_of_no_label
from segtrain.evaluate.rules import protocol_of, rules_of
from segtrain.evaluate.table import as_record, lines
from segtrain.run.storage import storage, write_json
from segtrain.sample import IGNORE, Facts, ScoreDict
from segtrain.settings import EvaluateSettings
from segtrain.task import TASK
from segtrain.text import count, notice, say

CLEARLY = 2  # times as many right pixels by which the other choice of `ids` is the likely one
CHANCE = 0.1  # share of right pixels below which nothing is concluded
MEANING = {"classes": "class indices", "labels": "the values of the data set's own masks"}


def score(config: dict, stop) -> dict:
    """Scores the predicted masks of a folder against a split. Prints the scores, writes them to scores.json
    if asked for, and returns what scores.json holds."""
    task = TASK.build({"name": "semantic"})
    data = DATA.build(config["data"], target=task.target)
    split, facts = split_of(data, config["split"]), data.facts
    compared = config["protocol"] == "all"
    settings = EvaluateSettings(
        protocol="default" if compared else config["protocol"], absent=config["absent"]
    )
    rules = rules_of(settings, config["data"])
    chosen = chosen_metrics(config["metric"], rules, task)
    metrics = built_metrics(chosen, facts, rules.absent or settings.absent, facts.num_classes + 1)
    tally = conventions.Conventions(facts) if compared else None
    pairs = _pairs(config, split, facts, "instances" in _needs(metrics), stop)
    numbers, pixels = _scores((one.resized(rules.short_side) for one in pairs), metrics, tally)
    warn_of_no_label(len(split), pixels)
    protocol = {
        "images": len(split),
        "pixels": pixels,
        "resolution": "native",
        **protocol_of(rules, settings),
        "ignore_index": facts.ignore_index,
        "metric": chosen,
        **{key: config[key] for key in ("predictions", "ids", "split", "data")},
    }
    record = as_record(Scores(numbers, protocol, []), facts)
    images, labelled = count(len(split), "image"), count(pixels, "labelled pixel")
    say(*lines(numbers, facts), f"scored    {images} of {config['split']}, {labelled}")
    if tally is not None:
        rows = tally.rows()
        record["conventions"] = conventions.as_record(rows)
        say("", *conventions.lines(rows))
    if config["output"]:
        path = Path(config["output"]) / "scores.json"
        with storage(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
        say(f"written   {path}")
    return record


def _needs(metrics: Mapping[str, object]) -> frozenset[str]:
    """The inputs of all metrics. ConfigError for one that masks do not give."""
    for name, metric in metrics.items():
        if "probabilities" in metric.needs:
            raise ConfigError(f"metric.{name} needs probabilities, and masks hold classes only; leave it out")
    return frozenset().union(*(metric.needs for metric in metrics.values()))


def _pairs(config: Mapping, split: Split, facts: Facts, with_instances: bool, stop) -> Iterator[Pair]:
    """Target and prediction of each sample, of equal sizes."""
    labels = labels_of(split)
    if config["ids"] == "labels" and labels is None:
        raise ConfigError(
            f"ids=labels needs a data set with mask files that are all read in one way, and "
            f"data={config['data']['name']} has none; use ids=classes"
        )
    paths = matched(split, config["predictions"])
    readings = {"classes": None, "labels": labels}
    if labels is not None:
        _tell_of_other_ids(
            config["ids"],
            {ids: reading_of(split, paths, facts.num_classes, readings[ids]) for ids in readings},
        )
    for index, path in enumerate(tqdm(paths, unit="image", leave=False, disable=None)):
        stop.raise_if_requested("stopped while scoring")
        yield pair(
            split, index, read_prediction(path, facts.num_classes, readings[config["ids"]]), with_instances
        )


def _tell_of_other_ids(ids: str, readings: Mapping[str, Reading | None]) -> None:
    """Notice if many more pixels are right with the other choice of `ids`, or more, and it alone takes all
    values for classes: where 255 is a value of the masks, it is no class with ids=classes."""
    other = "classes" if ids == "labels" else "labels"
    own, better = readings[ids], readings[other]
    if own is None or better is None:
        return
    complete = own.of_no_class > 0 == better.of_no_class and better.right > own.right
    if complete or better.right > max(CLEARLY * own.right, CHANCE):
        notice(
            f"warning: with ids={ids} {own.right:.1%} of the labelled pixels are right, with ids={other} "
            f"{better.right:.1%}: the predictions seem to hold {MEANING[other]}; set ids={other}"
        )


def _scores(pairs: Iterable[Pair], metrics: Mapping, tally: conventions.Conventions | None):
    """The scores of all metrics, and the number of labelled pixels. tally: also counts each pair."""
    totals: dict[str, torch.Tensor] = {}
    pixels = 0
    for one in pairs:
        pixels += int((one.target != IGNORE).sum())
        if tally is not None:
            tally.add(one.target, one.decisions)
        evidence = {
            name: None if values is None else torch.from_numpy(values)[None]
            for name, values in one._asdict().items()
        }
        target = evidence.pop("target")
        for name, metric in metrics.items():
            counts = metric.counts(target, **{need: evidence[need] for need in metric.needs})[0]
            totals[name] = counts if name not in totals else totals[name] + counts
    numbers: ScoreDict = {}
    for name, metric in metrics.items():
        numbers |= metric.scores(totals[name])
    return numbers, pixels
