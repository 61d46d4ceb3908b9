"""What a run that exists already goes on with, and when it is to go on by itself."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from segtrain.cli.lazy import check, has_checkpoint
from segtrain.run.record import read_record
from segtrain.run.requeue import requeued
from segtrain.run.saved import check_unchanged, relocated, saved_config


def to_run(config: dict, folder: Path) -> tuple[dict, dict | None]:
    """The checked config of a run, and its scores if it is finished."""
    checked = check("train", config)
    if not has_checkpoint(folder):
        return checked, None
    scores = scores_if_finished(folder)
    return as_resumed(checked, folder, finished=scores is not None), scores


def scores_if_finished(folder: Path) -> dict | None:
    """The scores of a finished run whose last checkpoint is intact; None for any other run."""
    record = read_record(folder)
    scores = record.get("scores") or {}
    if record.get("exit_code") != 0 or "step" not in scores:
        return None
    damage_of = importlib.import_module("segtrain.checkpoint.format").damage_of
    return scores if damage_of(folder / "checkpoints" / str(scores["step"])) is None else None


def as_resumed(config: Mapping, folder: Path, finished: bool = False) -> dict:
    """The config for resuming the run in `folder`: relative paths of its data and of its second network are
    also looked for in the directory where the run was started. ConfigError if the config differs from the
    saved one in a key that a resumed run may not change.

    finished: nothing will be trained, so the samples cannot be compared and paths of the data must have the
    same last component.
    """
    build = importlib.import_module("segtrain.build")
    saved = build.check("train", saved_config(folder))
    paths = build.path_keys(saved)
    of_data = [key for key in paths if key.startswith("data.")]
    check_unchanged(saved, config, folder, paths, () if finished else of_data)
    sections = {}
    for section in ("data", "predictor", "loader"):
        names = [key.removeprefix(f"{section}.") for key in paths if key.startswith(f"{section}.")]
        sections[section] = relocated(config[section], saved[section], names, folder)
    return {**config, **sections}


def requeued_if_asked(configs: Iterable[Mapping], resumable: bool) -> AbstractContextManager:
    """The context of `segtrain.run.requeue` for the composed config of a run, or for those of all trials of a
    sweep."""
    asked = (config["trainer"]["requeue"] for config in configs if not config["dry_run"])
    return requeued(next(filter(None, asked), None), resumable)
