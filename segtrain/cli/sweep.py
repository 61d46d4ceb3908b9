"""`--multirun` and `sweep=NAME`: several trainings that differ in chosen keys, and a ranked table of them."""

from __future__ import annotations

import datetime
import importlib
import secrets
from pathlib import Path

from segtrain.cli.compose import Composer
from segtrain.cli.resumed import as_resumed, has_checkpoint
from segtrain.cli.sweep_plan import Plan, checked, grid_of, planned, space_of
from segtrain.cli.trials import run_all
from segtrain.errors import ConfigError
from segtrain.run.debug_log import debug_log
from segtrain.run.existing import remove_run
from segtrain.run.folder import check_name, create
from segtrain.run.layout import CONFIG, OUTPUTS
from segtrain.run.lock import Lock
from segtrain.run.record import read_record
from segtrain.run.stop import Stop
from segtrain.settings import Sweep
from segtrain.sweep.results import SEARCH, Results, read_results
from segtrain.sweep.search import Grid, Proposals, Search, ends_of
from segtrain.sweep.trial import Score, Trial, folder_name


def sweep(words: list[str], config_dir: str | None, stop: Stop, command_line: list[str]) -> int:
    """Runs a sweep. Returns the exit code: 0 if no trial failed, else 1. Interrupted if a signal came."""
    composer = Composer("train", config_dir)
    with composer.ready():
        plan, common, hydra_values = planned(words, composer)
        grid = None if plan.settings.name == "optuna" else grid_of(plan)
        first = _first_valid(grid or [plan.trial(0, end) for end in ends_of(space_of(plan))])
        folder, made = _folder(common, hydra_values.get("hydra.sweep.dir"))
        with Lock(folder), debug_log(folder):
            try:
                results = Results(_score(first), [], vars(plan.settings), ["segtrain", *command_line])
                search = _search(plan, grid, folder, results.score)
                flags = [] if config_dir is None else [f"--config-dir={config_dir}"]
                return run_all(search, results, plan.launcher, folder, stop, flags)
            except ConfigError:
                if made:
                    remove_run(folder)
                raise


def _first_valid(trials: list[Trial]) -> Trial:
    """The first trial that composes. ConfigError if none does: the mistake is in what they share, and nothing
    is run."""
    found = next((trial for trial in trials if trial.status != "failed"), None)
    if found is None:
        raise ConfigError(trials[0].error)
    return found


def _score(trial: Trial) -> Score:
    """The score by which the trials are ranked: that which picks the best checkpoint. Imports torch."""
    task = importlib.import_module("segtrain.task").TASK.build(trial.config["task"])
    return Score(f"val/{task.score}", task.lower_is_better)


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


def _search(plan: Plan, grid: list[Trial] | None, folder: Path, score: Score) -> Search:
    """How the trials are chosen, with the results of those that an earlier call has trained. ConfigError if
    that call was for another config, or if no trial is valid."""
    earlier = read_results(folder)
    if earlier is not None:
        _check_same_search(plan.settings, earlier, folder)
    if grid is None:
        return _proposals(plan, folder, score)
    for trial in grid:
        trial.folder = folder / folder_name(trial.swept)
        checked(trial)
        if trial.config is not None and _finished(trial):
            trial.status = "finished"
            trial.read_results(score)
    _first_valid(grid)
    return Grid(grid)


def _proposals(plan: Plan, folder: Path, score: Score) -> Proposals:
    space = space_of(plan)
    _first_valid([checked(plan.trial(0, end)) for end in ends_of(space)])

    def make(number: int, swept: dict[str, str]) -> Trial:
        trial = checked(plan.trial(number, swept))
        trial.folder = folder / f"trial{number:03d}"
        return trial

    proposals = Proposals(plan.settings, space, folder, score, make)
    ended = [trial for trial in proposals.trials if trial.status in ("finished", "pruned")]
    if ended and ended[0].config is not None:
        _finished(ended[0])  # raises if it was started with another config, and so were all
    for trial in ended:
        trial.read_results(score)
    return proposals


def _finished(trial: Trial) -> bool:
    """Whether the run in the trial's folder is finished. ConfigError if it was started with another
    config."""
    if not (trial.folder / CONFIG).is_file():
        return False
    finished = read_record(trial.folder).get("exit_code") == 0
    if finished or has_checkpoint(trial.folder):
        as_resumed(trial.config, trial.folder, finished)
    return finished


def _check_same_search(settings: Sweep, earlier: Results, folder: Path) -> None:
    """ConfigError if Optuna's trials were proposed by other settings than these."""
    if "optuna" not in (settings.name, earlier.settings.get("name")):
        return
    for key in SEARCH:
        before, now = earlier.settings.get(key), getattr(settings, key)
        if before != now:
            raise ConfigError(
                f"sweep.{key} is {now}, but {folder} was started with {before}; choose another name, or set "
                f"sweep.{key} back"
            )
