"""Runs commands, in one process or in several that torchrun has started: rank 0 has the run folder, the
others follow."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from pathlib import Path

from segtrain.cli.lazy import check, command, import_torch
from segtrain.commands import COMMANDS, Command
from segtrain.errors import ConfigError
from segtrain.run.rank import launched
from segtrain.run.stop import Stop


def check_ranks(flag: str, row: Command) -> None:
    """ConfigError for a command that torchrun may not start in several processes. flag: --multirun or
    nothing."""
    if launched().size == 1 or (row.on_ranks and not flag):
        return
    able = ", ".join(one.name for one in COMMANDS.values() if one.on_ranks)
    raise ConfigError(
        f"segtrain {' '.join([row.name, flag]).strip()} runs in one process, and torchrun started "
        f"{launched().size}; start it without torchrun (with several processes: {able})"
    )


def refuse_stages() -> None:
    """ConfigError if torchrun has started several processes."""
    if launched().size > 1:
        raise ConfigError(
            "stages run one after another in one process; under torchrun, start each of them by itself with "
            "stages=null and init=RUN"
        )


def run(name: str, config: dict, stop: Stop):
    """Checks a composed config and runs its command, other than a training that is saved. Of several ranks,
    rank 0 writes what the others have counted too."""
    function, config = command(name), check(name, config)
    ranks = importlib.import_module("segtrain.ranks")
    with contextlib.ExitStack() as stack:
        stack.enter_context(ranks.process_group(config.get("device", "cpu"), stop.raise_if_requested))
        if launched().rank > 0 and name in ("evaluate", "compare"):
            config = {**config, "output": stack.enter_context(tempfile.TemporaryDirectory())}
        given = (config, None) if name == "train" else (config,)
        return function(*given, ranks.shared(stop))


def restarted(config: dict) -> dict:
    """The config of a run that torchrun may restart: it then resumes. ConfigError if it has no name to be
    found by."""
    place = launched()
    if place.max_restarts and not config["name"] and config["resume"] in (None, "auto"):
        raise ConfigError(
            "torchrun --max-restarts restarts a run that has failed, which needs a name to be found by; add "
            "name=NAME"
        )
    return {**config, "resume": config["resume"] or "auto"} if place.restart_count else config


def follow(device: str, stop: Stop) -> tuple[Path, dict]:
    """A training on a rank above 0: folder and checked config come from rank 0, and so do the scores of a
    finished run."""
    import_torch(stop)
    ranks = importlib.import_module("segtrain.ranks")
    with ranks.process_group(device, stop.raise_if_requested):
        folder, config, scores = ranks.all_gather(None, ranks.LONG_S)[0]
        if scores is None:
            scores = command("train")(config, Path(folder), ranks.shared(stop))
    return Path(folder), scores
