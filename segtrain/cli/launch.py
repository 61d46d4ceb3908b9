"""Starts commands. For a training: creates and locks the run folder, then imports torch, then trains."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from segtrain.commands import COMMANDS
from segtrain.errors import ConfigError, SegtrainError
from segtrain.run.debug_log import debug_log
from segtrain.run.existing import remove_run, run_folder_of
from segtrain.run.layout import CONFIG, METRICS
from segtrain.run.lock import Lock
from segtrain.run.own import check_own
from segtrain.run.rank import launched
from segtrain.run.record import Record, read_record
from segtrain.run.saved import check_unchanged, relocated, saved_config
from segtrain.run.stop import Stop
from segtrain.run.storage import remove_leftovers
from segtrain.text import say

# segtrain.build, checkpoint and commands are imported in functions: they import torch, which takes seconds,
# and the lock is taken first.


def command(name: str) -> Callable:
    """The function of a command, such as `segtrain.commands.train.train`."""
    row = COMMANDS[name]
    module, _, function = (row.function or f"segtrain.commands.{row.file_name}:{row.file_name}").partition(
        ":"
    )
    return getattr(importlib.import_module(module), function)


def check(name: str, config: Mapping) -> dict:
    """The composed config of a command with the options of its groups checked and every default filled in.
    Its sections have been checked before. Imports torch."""
    return importlib.import_module("segtrain.build").check_groups(name, config)


def has_checkpoint(folder: Path) -> bool:
    """Whether the folder holds a checkpoint to resume from. Imports torch."""
    return importlib.import_module("segtrain.checkpoint").has_checkpoint(folder)


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


def train(config: dict, run_dir: str | None, stop: Stop, words: list[str]) -> tuple[Path | None, dict]:
    """Trains a composed config; returns the run folder (None for a dry run) and the last scores. run_dir:
    folder given by hydra.run.dir. words: the command line, for run.json."""
    if config["dry_run"]:
        return None, run("train", check("train", config), stop)
    config = _restarted(config)
    if launched().rank > 0:
        return _follow(config["device"], stop)
    folder, made = run_folder_of(config, run_dir)
    if any(folder.glob(f"stage*/{CONFIG}")):
        raise ConfigError(f"{folder} holds the stages of another run; choose another name")
    return folder, train_in(folder, made, config, stop, words)


def run(name: str, config: dict, stop: Stop):
    """Runs a command other than a training that is saved: on all ranks, of which rank 0 writes."""
    ranks = importlib.import_module("segtrain.ranks")
    with contextlib.ExitStack() as stack:
        stack.enter_context(ranks.joined(config["device"], stop.raise_if_requested))
        if launched().rank > 0 and name in ("evaluate", "compare"):
            config = {**config, "output": stack.enter_context(tempfile.TemporaryDirectory())}
        given = (config, None) if name == "train" else (config,)
        return command(name)(*given, ranks.shared(stop))


def _restarted(config: dict) -> dict:
    """The config of a run that torchrun may restart: it then resumes. ConfigError if it has no name to be
    found by."""
    place = launched()
    if place.restarts and not config["name"] and config["resume"] in (None, "auto"):
        raise ConfigError(
            "torchrun --max-restarts restarts a run that has failed, which needs a name to be found by; add "
            "name=NAME"
        )
    return {**config, "resume": config["resume"] or "auto"} if place.restart else config


def _follow(device: str, stop: Stop) -> tuple[Path, dict]:
    """A training on a rank above 0: the folder and the checked config come from rank 0."""
    _import_torch(stop)
    ranks = importlib.import_module("segtrain.ranks")
    with ranks.joined(device, stop.raise_if_requested):
        folder, config, scores = ranks.gathered(None, ranks.LONG_S)[0]
        if scores is None:
            scores = command("train")(config, folder, ranks.shared(stop))
    return folder, scores


def train_in(folder: Path, made: bool, config: dict, stop: Stop, words: list[str]) -> dict:
    """Trains in a folder, resuming if it holds a checkpoint. made: whether the folder was created for this
    run; it is removed if the run cannot start."""
    with Lock(folder), debug_log(folder):
        try:
            for own in (folder, folder / "checkpoints", folder / "report"):
                check_own(own, folder=True)
                remove_leftovers(own)
            _import_torch(stop)
            ranks = importlib.import_module("segtrain.ranks")
            with ranks.joined(config["device"]):
                with stop.at_once():
                    checked, scores = _to_run(config, folder)
                ranks.gathered((folder, checked, scores))
                if scores is not None:
                    say(f"{folder} is finished: nothing is left to do")
                    return scores
                with Record(folder, checked, words) as record:
                    record.scores = command("train")(checked, folder, ranks.shared(stop))
            return record.scores
        except (SegtrainError, ImportError, OSError, MemoryError):
            # While the lock is held: another process may otherwise start in the new folder meanwhile.
            # Without torch, whose import may be what failed.
            if made and not any(folder.glob("checkpoints/*")) and not (folder / METRICS).exists():
                remove_run(folder)
            raise


def _to_run(config: dict, folder: Path) -> tuple[dict, dict | None]:
    """The checked config of a run, and its scores if it is finished."""
    checked = check("train", config)
    if not has_checkpoint(folder):
        return checked, None
    scores = scores_if_finished(folder)
    return as_resumed(checked, folder, finished=scores is not None), scores


def _import_torch(stop: Stop) -> None:
    """Imports all modules of a run. Signals are handled between imports only: an interrupted import of torch
    leaves a partly initialised module, on which later clean-up code would crash."""
    for module in ("torch", "segtrain.commands.train"):
        stop.raise_if_requested()
        importlib.import_module(module)
    stop.raise_if_requested()
