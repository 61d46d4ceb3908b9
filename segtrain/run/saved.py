"""config.yaml of a run: written once it is settled, read by every command that works on the run, and the keys
that a resumed run may change."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import NoneType
from typing import Any

from segtrain.commands import COMMANDS
from segtrain.errors import CheckpointError, ConfigError
from segtrain.run.layout import CONFIG
from segtrain.run.own import parsed, read_own
from segtrain.run.plain_yaml import check_plain, read_yaml, to_yaml
from segtrain.run.record import read_record
from segtrain.run.storage import write_atomic
from segtrain.text import flatten, notice, show

CHANGEABLE = (
    "device",
    "threads",
    "loader.cache",
    "loader.cache_dir",
    "evaluate.batch_size",
    "evaluate.pictures",
    "trainer.keep_checkpoints",
    "trainer.compile",
    "trainer.requeue",
    "tracker",
    "*.workers",
    "*_every",
)
"""Keys that may change when a run is resumed, with wildcards: they do not influence the weights. A run that
ended for want of memory or disk space needs some of them changed."""
AUTO = "auto"
MAX_DESCRIPTION = 16 << 20


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
    return _upgraded(config, folder)


def write_config(folder: Path, config: Mapping) -> None:
    """Writes config.yaml. CheckpointError if the storage refuses."""
    write_atomic(folder / CONFIG, to_yaml(plain_data(config)).encode())


def _restore(folder: Path) -> str:
    return f"restore it from a copy, or from the config in {folder}/checkpoints/last/description.json"


def _upgraded(config: dict, folder: Path) -> dict:
    """Converts the config of an earlier version: evaluate.boundary_px is now the metric `boundary`, random
    splits of data=folder were drawn in another way, and config.yaml did not hold settled values such as class
    names, which are taken from the last checkpoint."""
    data = config.get("data") or {}
    if data.get("name") == "folder" and "split_bounds" not in data:
        data = {**data, "split_bounds": []}
        config = {**config, "data": data}
    if None in data.values():
        config = {**config, "data": fill_in(data, _of_last_checkpoint(folder).get("data"))}
    evaluate = dict(config.get("evaluate") or {})
    tolerance_px = evaluate.pop("boundary_px", None)
    if tolerance_px is None:
        return {**config, "evaluate": evaluate} if "evaluate" in config else config
    metric = {"confusion": {}, "boundary": {"tolerance_px": tolerance_px}}
    return {**config, "evaluate": evaluate, "metric": metric}


def _of_last_checkpoint(folder: Path) -> dict:
    """The config in the description of the newest checkpoint; {} if there is none. Damage is found by the
    reader of checkpoints."""
    with contextlib.suppress(OSError, ValueError):
        description = parsed(read_own(folder / "checkpoints" / "last" / "description.json", MAX_DESCRIPTION))
        return dict(description["config"])
    return {}


def fill_in(options: Mapping, saved: Any) -> dict:
    """The options of a group, with null options replaced by the values that the run settled, if it has the
    same entry. A string is a path that a user gave and is never settled."""
    if not isinstance(saved, Mapping) or saved.get("name") != options.get("name"):
        return dict(options)
    settled = {key: value for key, value in saved.items() if not isinstance(value, str)}
    return {key: settled.get(key) if value is None else value for key, value in options.items()}


def with_settled_values(config: Mapping, saved: Mapping) -> dict:
    """The config of a resumed run, with unset values replaced by those that the run settled at its start.

    Unset are null options of the data set, trainer.steps=null, trainer.memory_format=auto,
    loader.batch_size=auto and predictor.crf_solver=auto. saved: the run's config.
    """
    trainer, predictor, loader = (dict(config[section]) for section in ("trainer", "predictor", "loader"))
    old_trainer, old_predictor = saved["trainer"], saved.get("predictor") or {}
    if trainer["steps"] is None:
        trainer["steps"] = old_trainer.get("steps")
    if trainer["epochs"] is None and trainer["steps"] == old_trainer.get("steps"):
        trainer["epochs"] = old_trainer.get("epochs")  # from which those steps follow
    if trainer["memory_format"] == AUTO:
        trainer["memory_format"] = old_trainer.get("memory_format", AUTO)
    if predictor["crf_solver"] == AUTO:
        predictor["crf_solver"] = old_predictor.get("crf_solver", AUTO)
    if loader["batch_size"] == AUTO:
        loader["batch_size"] = (saved.get("loader") or {}).get("batch_size", AUTO)
    return {
        **config,
        "data": fill_in(config["data"], saved["data"]),
        "loader": loader,
        "trainer": trainer,
        "predictor": predictor,
    }


def relocated(options: Mapping, saved: Mapping, paths: Collection[str], folder: Path) -> dict:
    """The options of a run's data set, or of a section of its config, with relative paths that exist only
    below the directory in which the run was started made absolute. Paths below data.root are left to the data
    set. If a path exists in both directories, the current one wins, with a notice.

    saved: the options in the run's config; a path that differs from it was given on the command line and
    stays as it is. paths: names of the options that hold files or folders, with dots where they are in a
    mapping. folder: of the run.
    """
    started = read_record(folder).get("directory")
    found, kept = dict(options), flatten(saved)
    for name in sorted(paths, key=_is_no_root):  # root first: the others may be relative to it
        now = flatten(found)
        value, root = now.get(name), now.get(f"{name.rpartition('.')[0]}.root".lstrip("."))
        if started is None or value != kept.get(name):
            continue
        root = root if _is_no_root(name) else None
        if isinstance(value, str):
            found = _with_value(found, name, _relocated(name, value, started, root))
        elif isinstance(value, list) and all(os.path.isdir(os.path.join(started, str(one))) for one in value):
            # A list of runs. Lists without folders hold names, such as those of classes.
            found = _with_value(found, name, [_relocated(name, one, started, root) for one in value])
    return found


def _relocated(name: str, value: str, started: str, root: str | None) -> str:
    """A path of an option as `relocated` finds it. started: directory of the run's start. root: folder that
    the path may be relative to."""
    there = os.path.join(started, value)
    below_root = root is not None and os.path.exists(os.path.join(root, value))
    if os.path.isabs(value) or below_root or not os.path.exists(there):
        return value
    if not os.path.exists(value):
        return there
    if not os.path.samefile(value, there):
        notice(
            f"{name}={value} of the run is read below {os.getcwd()}, and differs from {there}, where the "
            f"run was started"
        )
    return value


def _is_no_root(name: str) -> bool:
    return name.rpartition(".")[2] != "root"


def _with_value(options: Mapping, key: str, value: Any) -> dict:
    """The options with the value of a key, which has dots where it is in a mapping."""
    first, _, rest = key.partition(".")
    return {**options, first: _with_value(options[first], rest, value) if rest else value}


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


def check_unchanged(
    saved: Mapping, config: Mapping, folder: Path, paths: Collection[str], compared: Collection[str] = ()
) -> None:
    """ConfigError if the config of a resumed run differs from the saved one in a key that influences the
    weights.

    paths: keys of files and folders, which may have moved: only their last component is compared. compared:
    those whose content the training compares itself (`commands.resume.check_samples`); they may change
    freely.
    """
    old, new = flatten(plain_data(saved)), flatten(plain_data(with_settled_values(config, saved)))
    for key in dict.fromkeys([*new, *old]):
        before, now = old.get(key), new.get(key)
        moved = key in paths and (key in compared or _base_name(before) == _base_name(now))
        if before == now or moved or _may_change(key) or AUTO in (before, now):
            continue
        # Weights of another network would not fit.
        start = "" if key.startswith("model.") else f", with init={folder} to start from its weights"
        raise ConfigError(
            f"{key} is {show(now)}, but {folder} was started with {show(before)}; a resumed run may change "
            f"only {', '.join(CHANGEABLE)} and paths of the same files: choose another name{start}"
        )


def _may_change(key: str) -> bool:
    # The name and resume=true say which run is resumed; below a group are its options.
    parents = {key, key.partition(".")[0]}
    return key in ("name", "resume") or any(fnmatchcase(one, form) for one in parents for form in CHANGEABLE)


def _base_name(path: Any) -> Any:
    return os.path.basename(os.path.normpath(path)) if isinstance(path, str) else path


def plain_data(config: Mapping) -> dict:
    return json.loads(json.dumps(config))
