"""Starts commands. For a training: creates and locks the run folder, then imports torch, then trains."""

from __future__ import annotations

import importlib
from pathlib import Path

from segtrain.cli import on_ranks
from segtrain.cli.lazy import command, import_torch
from segtrain.cli.resumed import to_run
from segtrain.errors import ConfigError, SegtrainError
from segtrain.run.debug_log import debug_log
from segtrain.run.existing import remove_run, run_folder_of
from segtrain.run.layout import CONFIG, METRICS
from segtrain.run.lock import Lock
from segtrain.run.own import check_own
from segtrain.run.rank import launched
from segtrain.run.record import Record
from segtrain.run.stop import Stop
from segtrain.run.storage import remove_leftovers
from segtrain.text import say


def train(config: dict, run_dir: str | None, stop: Stop, words: list[str]) -> tuple[Path | None, dict]:
    """Trains a composed config; returns the run folder (None for a dry run) and the last scores. run_dir:
    folder given by hydra.run.dir. words: the command line, for run.json."""
    if config["dry_run"]:
        return None, on_ranks.run("train", config, stop)
    config = on_ranks.restarted(config)
    if launched().rank > 0:
        return on_ranks.follow(config["device"], stop)
    folder, made = run_folder_of(config, run_dir)
    if any(folder.glob(f"stage*/{CONFIG}")):
        raise ConfigError(f"{folder} holds the stages of another run; choose another name")
    return folder, train_in(folder, made, config, stop, words)


def train_in(folder: Path, made: bool, config: dict, stop: Stop, words: list[str]) -> dict:
    """Trains in a folder, resuming if it holds a checkpoint. made: whether the folder was created for this
    run; it is removed if the run cannot start."""
    with Lock(folder), debug_log(folder):
        try:
            for own in (folder, folder / "checkpoints", folder / "report"):
                check_own(own, folder=True)
                remove_leftovers(own)
            import_torch(stop)
            ranks = importlib.import_module("segtrain.ranks")
            with ranks.process_group(config["device"]):
                with stop.at_once():
                    checked, scores = to_run(config, folder)
                ranks.all_gather((str(folder), checked, scores))
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
