"""`--multirun` and `sweep=NAME`: several trainings that differ in chosen keys, and a ranked table of them."""

from __future__ import annotations

import datetime
import secrets
from pathlib import Path

from segtrain.cli.compose import Composer
from segtrain.cli.resumed import requeued_if_asked
from segtrain.cli.sweeps.plan import grid_of, planned, space_of
from segtrain.cli.sweeps.search import first_valid, score_of, search_of
from segtrain.cli.sweeps.trials import run_all
from segtrain.errors import ConfigError
from segtrain.run.debug_log import debug_log
from segtrain.run.existing import remove_run
from segtrain.run.folder import check_name, create
from segtrain.run.layout import CONFIG, OUTPUTS
from segtrain.run.lock import Lock
from segtrain.run.stop import Stop
from segtrain.sweep.jobs import jobs_of
from segtrain.sweep.results import Results
from segtrain.sweep.search import ends_of


def sweep(words: list[str], config_dir: str | None, stop: Stop, command_line: list[str]) -> int:
    """Runs a sweep. Returns the exit code: 0 if no trial failed, else 1. Interrupted if a signal came."""
    composer = Composer("train", config_dir)
    with composer.ready():
        plan, common, hydra_values = planned(words, composer)
        grid = None if plan.settings.name == "optuna" else grid_of(plan)
        trials = grid or [plan.trial(0, end) for end in ends_of(space_of(plan))]
        first = first_valid(trials)
        sweep_dir = hydra_values.get("hydra.sweep.dir")
        flags = [] if config_dir is None else [f"--config-dir={config_dir}"]
        configs = [trial.config for trial in trials if trial.config is not None]
        with requeued_if_asked(configs, resumable=bool(common.get("name") or sweep_dir)):
            folder, made = _folder(common, sweep_dir)
            with Lock(folder), debug_log(folder):
                try:
                    line = ["segtrain", *command_line]
                    results = Results(score_of(first), [], vars(plan.settings), line, flags)
                    search = search_of(plan, grid, folder, results.score)
                    jobs = jobs_of(plan.launcher, folder)
                except ConfigError:
                    if made:
                        remove_run(folder)
                    raise
                return run_all(search, results, jobs, folder, stop)


def _folder(common: dict, sweep_dir: str | None) -> tuple[Path, bool]:
    """The sweep's folder, and whether it was created now. An existing folder of that name is a sweep to
    complete."""
    name = common.get("name")
    if name is not None and sweep_dir is not None:
        raise ConfigError(
            f"name={name} and hydra.sweep.dir={sweep_dir} both say where the sweep goes; give one of them"
        )
    if name is None and sweep_dir is None:
        now = datetime.datetime.now()
        return create(
            OUTPUTS / now.strftime("%Y-%m-%d"), f"{now:%H-%M-%S}-{secrets.token_hex(3)}-sweep"
        ), True
    if sweep_dir is None:
        check_name(str(name))
    folder = Path(sweep_dir) if sweep_dir else OUTPUTS / str(name)
    if (folder / CONFIG).exists():
        raise ConfigError(f"{folder} is the folder of a single run; choose another name for the sweep")
    return (folder, False) if folder.is_dir() else (create(folder.parent, folder.name), True)
