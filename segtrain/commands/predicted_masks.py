"""Predicted masks of files, and their scores."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import torch
from tqdm import tqdm

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
from segtrain.evaluate.conventions import Conventions
from segtrain.evaluate.counts import Counts
from segtrain.evaluate.loop import Scores
from segtrain.sample import IGNORE, Facts
from segtrain.text import notice

CLEARLY = 2  # times as many right pixels by which the other choice of `ids` is the likely one
CHANCE = 0.1  # share of right pixels below which nothing is concluded
MEANING = {"classes": "class indices", "labels": "the values of the data set's own masks"}


def needs_of(metrics: Mapping[str, object]) -> frozenset[str]:
    """The inputs of all metrics. ConfigError for one that masks do not give."""
    for name, metric in metrics.items():
        if "probabilities" in metric.needs:
            raise ConfigError(f"metric.{name} needs probabilities, and masks hold classes only; leave it out")
    return frozenset().union(*(metric.needs for metric in metrics.values()))


def pairs_of(config: Mapping, split: Split, facts: Facts, with_instances: bool, stop) -> Iterator[Pair]:
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


def scores_of(
    pairs: Iterable[Pair], metrics: Mapping[str, object], tally: Conventions | None, kept: Collection[str]
) -> tuple[Scores, int]:
    """The scores of all metrics, and the number of labelled pixels. tally: also counts each pair. kept: names
    of the metrics whose counts of every image are kept."""
    counts = Counts(metrics, kept)
    pixels = images = 0
    for one in pairs:
        images += 1
        pixels += int((one.target != IGNORE).sum())
        if tally is not None:
            tally.add(one.target, one.decisions)
        evidence = {
            name: None if values is None else torch.from_numpy(values)[None]
            for name, values in one._asdict().items()
        }
        counts.add(evidence.pop("target"), evidence, 1)
    numbers, further = counts.scores()
    return Scores(numbers, {}, [], further, counts.totals, counts.per_image(), tuple(range(images))), pixels
