"""The config that a run was saved with, and what a resumed run may change of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from segtrain.errors import CheckpointError, ConfigError
from segtrain.run.layout import CONFIG
from segtrain.run.plain_yaml import check_plain, read_yaml
from segtrain.settings import COMMANDS
from segtrain.text import flatten, show

RESUMABLE = re.compile(r"name|resume|device|threads|trainer\.compile|.*\.workers|.*_every|trackers?\b.*")
"""Keys that may change while a run goes on: they change no weights."""


def saved_config(folder: Path) -> dict:
    """The config that the run was saved with, as plain data. A damaged one is a CheckpointError, a dangerous
    one a ConfigError."""
    path = folder / CONFIG
    try:
        config = read_yaml(path)
    except ConfigError as error:
        if "holds the key" in str(error):
            raise
        raise CheckpointError(str(error)) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a config; {_restore(folder)}")
    check_plain(config, path, ("defaults",))
    row = COMMANDS["train"]
    for key in {*row.sections, *row.groups} - {""}:
        if not isinstance(config.get(key), (Mapping, NoneType)):
            raise CheckpointError(f"{path}: {key} is {config[key]!r}, not a mapping; {_restore(folder)}")
    for key, value in flatten(config).items():
        if "${" in str(value):
            raise ConfigError(f"{path}: {key} holds '${{'; the config of a run holds plain values only")
    return _upgraded(config)


def _restore(folder: Path) -> str:
    return f"restore it from the description in {folder}/checkpoints"


def _upgraded(config: dict) -> dict:
    """A config of an earlier version in today's keys: boundary scores were asked for by
    evaluate.boundary_px."""
    evaluate = dict(config.get("evaluate") or {})
    tolerance_px = evaluate.pop("boundary_px", None)
    if tolerance_px is None:
        return {**config, "evaluate": evaluate} if "evaluate" in config else config
    metric = {"confusion": {}, "boundary": {"tolerance_px": tolerance_px}}
    return {**config, "evaluate": evaluate, "metric": metric}


def check_overrides_of_saved(typed: list, saved: Mapping, run: str) -> None:
    """ConfigError if an override of evaluate or predict chooses another network. Its options are compared
    once it is built."""
    for one in typed:
        if one.key == "model":
            raise ConfigError(
                f"model={one.text} cannot change here: the weights of {run} were trained with "
                f"{(saved.get('model') or {}).get('name')}; "
                f"train a new run with model={one.text}"
            )


def check_unchanged(saved: Mapping, config: Mapping, folder: Path) -> None:
    """ConfigError if a run that goes on would do so with a value that matters and that it was not started
    with."""
    old, new = flatten(plain_data(saved)), flatten(plain_data(config))
    for key in dict.fromkeys([*new, *old]):
        if (
            old.get(key) == new.get(key)
            or RESUMABLE.fullmatch(key)
            or _settled(key, old.get(key), new.get(key))
        ):
            continue
        raise ConfigError(
            f"{key} is {show(new.get(key))}, but {folder} was started with {show(old.get(key))}; a run "
            f"that goes on may change only "
            f"workers, device, threads, trainer.compile and *_every: choose another name, with "
            f"init={folder} to start from its weights"
        )


def _settled(key: str, old: Any, new: Any) -> bool:
    """`auto` was settled by the run itself, which saved its answer."""
    return key == "trainer.memory_format" and "auto" in (old, new)


def plain_data(config: Mapping) -> dict:
    return json.loads(json.dumps(config))
