"""`segtrain plan`: an experiment for a data set and a time, from statistics and a profile of its training."""

from __future__ import annotations

import importlib.resources
import os
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from segtrain import build
from segtrain.commands import recipe
from segtrain.commands.parts import Parts, check_splits
from segtrain.commands.prepare import prepare
from segtrain.commands.profiling import (
    IMPORTS_S,
    Profile,
    available,
    parts_of,
    profile,
    without_pretrained,
)
from segtrain.commands.recipe import Choice, Costs, Findings
from segtrain.commands.runtime import learned_by
from segtrain.data import DATA, Data
from segtrain.data.selection import names_and_groups
from segtrain.data.survey.stats import class_pixels
from segtrain.errors import CheckpointError, ConfigError, DataError
from segtrain.loader.usable import training_headers
from segtrain.run.storage import storage, write_atomic
from segtrain.sample import CLASSES
from segtrain.text import count, say, table

TRIED = 2
"""Images a step of the first profile, which tells the memory an image takes."""
USED = 0.6
"""Share of the available memory that a step may take."""


def plan(config: dict, stop) -> dict:
    """Prints the choices with their reasons, writes them as the YAML of an experiment, and returns the
    training config that it stands for."""
    path = _output(config["output"], config["overwrite"])
    with stop.at_once():
        device = prepare(config)
        start = time.perf_counter()
        data = DATA.build(config["data"], target=CLASSES)
        check_splits(data, config)
        found = findings_of(data, config["data"])
        start_s = IMPORTS_S + time.perf_counter() - start
        defaults = {name: option.default for name, option in DATA.options(config["data"]["name"]).items()}
        fixed = recipe.data_choices(config["data"], defaults, data.settled)
        choices = fixed + _chosen(config, found, data, start_s, device, stop)
        checked = build.check("train", _as_config(choices, config))
    head = [
        f"Written by segtrain plan for {config['minutes']:g} minutes on {device}: "
        f"{count(found.num_train, 'training image')}, {count(found.num_val, 'validation image')} of "
        f"{count(len(found.classes), 'class', 'classes')}.",
        _command(path),
    ]
    _write(path, recipe.as_yaml(choices, head), config["overwrite"])
    say(*table(("key", "value", "reason"), recipe.shown(choices), left=(0, 1, 2), widest=44))
    say("", f"written   {path}", f"run       {_command(path)}")
    return checked


def findings_of(data: Data, config: Mapping) -> Findings:
    """What is known of a data set, whose training masks are all read."""
    train, val = data.splits["train"], data.splits["val"]
    headers = training_headers(train, skip_bad=False)
    pixels = class_pixels(train, data.facts.num_classes, data.facts.ignore_index)
    if not pixels.any():
        raise DataError(
            f"no pixel of {count(len(train), 'training image')} has a label; segtrain data check says what "
            f"the masks hold"
        )
    in_train, in_val = ({group for _, group in names_and_groups(split) if group} for split in (train, val))
    return Findings(
        classes=data.facts.classes,
        num_train=len(train),
        num_val=len(val),
        height=int(np.median([header.height for header in headers])),
        width=int(np.median([header.width for header in headers])),
        channels=data.facts.channels,
        class_pixels=pixels,
        groups=len(in_train | in_val),
        shared=len(in_train & in_val),
        drawn="split_bounds" in data.settled or config.get("split_bounds") is not None,
    )


def _chosen(config: Mapping, found: Findings, data: Data, start_s: float, device, stop) -> list[Choice]:
    """All choices but those of the data set, after trials of the network on this machine."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    batch, minutes = recipe.BATCH[kind], config["minutes"]
    sides = recipe.crop_sides(found, kind)
    network = recipe.network(found, kind, sides[0], None)
    parts, pretrained = _parts(_checked(network, config), data)
    if any(choice.key == "sampler.folds" for choice in network):
        found = _of_splits(found, parts.data)

    def costs(crop: int) -> tuple[Costs, list[Choice]]:
        """What a step of the crops costs, and the choices that were tried."""
        network = recipe.network(found, kind, crop, pretrained)
        few = [*network, Choice("loader.batch_size", TRIED, ""), Choice("loader.workers", 0, "")]
        say(f"trying    crops of {crop} px on {device}")
        memory = _tried(_checked(few, config), parts, found, device, stop, num_steps=2).memory
        fitting = max(2, int(USED * available(device) / (memory / TRIED)))
        chosen = [*network, *recipe.batches(kind, fitting, cores)]
        tried = _tried(_checked(chosen, config), parts, found, device, stop)
        return Costs(tried.step_s, tried.of_evaluation(found.num_val), start_s), chosen

    cost, chosen = costs(sides[0])
    crop = recipe.affordable(sides, found, cost, minutes, batch)
    if crop != sides[0]:
        cost, chosen = costs(crop)
    return [*chosen, *recipe.length(found, cost, minutes, batch)]


def _tried(
    config: dict, parts: Parts, found: Findings, device, stop, num_steps: int | None = None
) -> Profile:
    learned = learned_by(config, parts, parts.data.splits["train"], found.class_pixels)
    return profile(config, parts, learned, device, stop, num_steps=num_steps)


def _of_splits(found: Findings, data: Data) -> Findings:
    """The findings with the numbers of samples and class pixels of these splits."""
    train, val = data.splits["train"], data.splits["val"]
    pixels = class_pixels(train, data.facts.num_classes, data.facts.ignore_index)
    return replace(found, num_train=len(train), num_val=len(val), class_pixels=pixels)


def _parts(checked: dict, data: Data) -> tuple[Parts, str | None]:
    """The parts that are profiled, and why there are no pretrained weights (None if there are)."""
    checked = {**checked, "data": {**checked["data"], **data.settled}}
    try:
        return parts_of(checked), None
    except CheckpointError as error:
        return parts_of(without_pretrained(checked)), f"no pretrained weights: {error}".partition(";")[0]


def _checked(choices: list[Choice], config: Mapping) -> dict:
    return build.check("train", _as_config(choices, config))


def _as_config(choices: list[Choice], config: Mapping) -> dict:
    """A training config of the choices, with data set, device and threads of the command."""
    given = {"task": {"name": "semantic"}, "data": config["data"]}
    return {**given, "device": config["device"], "threads": config["threads"], **recipe.as_config(choices)}


# --- the file


def _output(output: str, overwrite: bool) -> Path:
    """Where the YAML goes: into a folder `experiment`, where experiment=NAME is looked for. ConfigError for a
    name that cannot be chosen so, or a file that exists."""
    path = Path(output)
    if path.suffix != ".yaml" or not re.fullmatch(r"[A-Za-z0-9_-]+", path.stem):
        raise ConfigError(f"output is {output!r}; give a name of letters, digits, _ and -, such as my.yaml")
    if (importlib.resources.files("segtrain.conf") / "experiment" / path.name).is_file():
        raise ConfigError(f"output={output}: segtrain has an experiment of that name; give another")
    if path.parent.name != "experiment":
        path = path.parent / "experiment" / path.name
    if path.exists() and not overwrite:
        raise ConfigError(f"output={output}: {path} exists; give another name, or overwrite=true")
    return path


def _write(path: Path, text: str, overwrite: bool) -> None:
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not overwrite:  # made meanwhile
        raise ConfigError(f"{path} exists; give another output, or overwrite=true")
    write_atomic(path, text.encode())


def _command(path: Path) -> str:
    return f"segtrain train experiment={path.stem} --config-dir {path.parent.parent}"
