"""Task, data set and network of a run, built from its config."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from segtrain import checkpoint as checkpoints
from segtrain.checkpoint.initial import checkpoint_of
from segtrain.checkpoint.reading import Checkpoint
from segtrain.checkpoint.restore import without_weights
from segtrain.data import DATA
from segtrain.data.parts import Data
from segtrain.data.selection import selected
from segtrain.errors import ConfigError, DataError, printable
from segtrain.model import MODEL
from segtrain.model.network import as_typed
from segtrain.sample import CLASSES, Facts, Normalisation, Target
from segtrain.settings import Loader, Sampler, Trainer
from segtrain.task import TASK
from segtrain.text import count
from segtrain.train.freezing import freeze_parts


@dataclass(frozen=True)
class Parts:
    """The parts of a run, built before anything is computed.

    source: checkpoint of the initial weights, from a resume or from init=RUN; None if there is none. saved:
    description of that checkpoint. initial: the checkpoint of init=RUN, already read.
    """

    task: object
    data: Data
    facts: Facts
    model: nn.Module
    source: Path | None = None
    saved: dict | None = None
    initial: Checkpoint | None = None


def with_normalisation(facts: Facts, model: nn.Module) -> Facts:
    """The facts with a normalisation: the data set's own, else the one of the pretrained encoder weights,
    else a mean and standard deviation of 0.5."""
    neutral = Normalisation((0.5,) * facts.channels, (0.5,) * facts.channels)
    return replace(facts, normalisation=facts.normalisation or model.normalisation or neutral)


def build_parts(config: Mapping, resumed: Path | None, description: dict | None = None) -> Parts:
    """The parts of a training run.

    resumed: checkpoint to resume from, or None; description: of that checkpoint. If weights come from a
    checkpoint (resume or init=RUN), pretrained encoder weights are not loaded."""
    task = TASK.build(config["task"])
    unread_in = ("train",) if Loader(**config["loader"]).skip_bad else ()
    data = DATA.build(config["data"], target=task.target, unread_in=unread_in)
    data = selected(data, Sampler(**config["sampler"]))
    facts = data.facts
    check_kind(task, data, config)
    check_splits(data, config)
    initial = checkpoint_of(config["init"]) if resumed is None else None
    source = resumed if initial is None else initial.path
    chosen = config["model"] if source is None else without_weights(config["model"])
    model = MODEL.build(
        chosen,
        out_channels=task.out_channels(facts),
        num_classes=facts.num_classes,
        in_channels=facts.channels,
    )
    if task.initial_logit is not None:
        model.set_biases(task.initial_logit(facts))  # a checkpoint's, if there is one, replace them
    # Before the batch is checked: frozen batch-norm takes a single image.
    freeze_parts(Trainer(**config["trainer"]), model, config["model"]["name"], restored=source is not None)
    if source is None:
        return Parts(task, data, with_normalisation(facts, model), model)
    model.weights_report = f"weights of {printable(source)}"
    if initial is not None:
        described = initial.description
    else:
        described = checkpoints.describe(source) if description is None else description
    saved = Facts.from_plain(described["facts"])
    if resumed is None:
        # The weights of init= were trained with this normalisation. Loading them refuses another number of
        # channels.
        own = facts.normalisation or (saved.normalisation if saved.channels == facts.channels else None)
        facts = with_normalisation(replace(facts, normalisation=own), model)
        return Parts(task, data, facts, model, source, described, initial)
    same_classes(saved, facts, str(resumed.parent.parent), task.target)
    facts = replace(facts, normalisation=saved.normalisation)
    return Parts(task, data, facts, model, source, described)


def check_kind(task, data: Data, config: Mapping) -> None:
    """ConfigError unless the data set has classes where the task wants classes, labels where it wants labels,
    and neither where it wants measured values."""
    facts, labels = data.facts, task.target.multilabel
    if labels and not data.labels:
        raise ConfigError(
            f"data={config['data']['name']} has one class at each pixel and task={task.name} needs labels, "
            f"each with masks of its own; use data=folder with data.labels, or another task"
        )
    if labels or task.target.classes == bool(facts.classes):
        return
    has = f"has {count(facts.num_classes, 'class', 'classes')}" if facts.classes else "has no classes"
    wants = "class indices" if task.target.classes else "measured values"
    raise ConfigError(
        f"data={config['data']['name']} {has} and task={task.name} needs targets of {wants}; choose another "
        f"data set or task"
    )


def check_splits(data: Data, config: Mapping) -> None:
    """DataError unless there are samples to train on and to validate with."""
    for split in ("train", "val"):
        if not data.splits.get(split):
            there = ", ".join(f"{len(samples)} in {name}" for name, samples in data.splits.items())
            raise DataError(
                f"data={config['data']['name']} has no image in split {split}, only {there}; training needs "
                f"one for itself and one for validation"
            )


def same_classes(run: Facts, data: Facts, where: str, target: Target = CLASSES) -> None:
    """ConfigError unless the run and the data have the same class names in the same order. where: the run's
    folder. target: of the task."""
    if run.classes != data.classes:
        pairs = enumerate(itertools.zip_longest(run.classes, data.classes))
        place = next(i for i, (a, b) in pairs if a != b)
        a, b = (list(classes[place : place + 3]) for classes in (run.classes, data.classes))
        raise ConfigError(
            f"{where} was trained on {len(run.classes)} classes and the data has {len(data.classes)}; they "
            f"differ from index {place}: "
            f"{a} and {b}; {_advice(run, data, target)}"
        )


def _advice(run: Facts, data: Facts, target: Target) -> str:
    if target.labels and not target.classes:
        return f"use data.labels={as_typed(run.classes)}, the names of their folders of masks"
    if run.num_classes != data.num_classes:
        return "use a data set of the run's classes, or one whose masks data.label_map brings to them"
    return (
        f"if they are the same under other names, use data.classes={as_typed(run.classes)} (data=folder), "
        f"else a data set of the run's classes"
    )
