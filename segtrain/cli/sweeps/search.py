"""How a sweep chooses its trials, and what an earlier call of the same sweep has left."""

from __future__ import annotations

import importlib
from pathlib import Path

from segtrain.cli.resumed import as_resumed, has_checkpoint
from segtrain.cli.sweeps.plan import Plan, checked, space_of
from segtrain.errors import ConfigError
from segtrain.run.layout import CONFIG
from segtrain.run.record import read_record
from segtrain.settings import Sweep
from segtrain.sweep.results import FIXED_SETTINGS, Results, read_results
from segtrain.sweep.search import STUDY, Grid, Proposals, Search, ends_of
from segtrain.sweep.trial import Score, Trial, folder_name
from segtrain.text import show


def first_valid(trials: list[Trial]) -> Trial:
    """The first trial that composes. ConfigError if none does: the mistake is in what they share, and nothing
    is run."""
    found = next((trial for trial in trials if trial.status != "failed"), None)
    if found is None:
        raise ConfigError(trials[0].error)
    return found


def score_of(trial: Trial) -> Score:
    """The score by which the trials are ranked: that which picks the best checkpoint. Imports torch."""
    task = importlib.import_module("segtrain.task").TASK.build(trial.config["task"])
    return Score(f"val/{task.score}", task.lower_is_better)


def search_of(plan: Plan, grid: list[Trial] | None, folder: Path, score: Score) -> Search:
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
        if trial.config is not None:
            _check_same_config(trial)
            if _is_finished(trial):
                trial.status = "finished"
                trial.read_results(score)
    first_valid(grid)
    _check_same_score(grid, score)
    return Grid(grid)


def _proposals(plan: Plan, folder: Path, score: Score) -> Proposals:
    space = space_of(plan)
    ends = [checked(plan.trial(0, end)) for end in ends_of(space)]
    first_valid(ends)
    _check_same_score(ends, score)

    def make(number: int, swept: dict[str, str]) -> Trial:
        trial = checked(plan.trial(number, swept))
        try:
            _check_same_score([trial], score)
        except ConfigError as error:
            trial.status, trial.error, trial.config = "failed", str(error), None
        trial.folder = folder / f"trial{number:03d}"
        return trial

    proposals = Proposals(plan.settings, space, folder, score, make)
    if not proposals.trials and any(folder.glob(f"trial*/{CONFIG}")):
        raise ConfigError(
            f"{folder} holds trials, and its {STUDY} knows none of them; put the study back, or choose "
            f"another name"
        )
    ended = [trial for trial in proposals.trials if trial.status in ("finished", "pruned")]
    for trial in [one for one in ended if one.config is not None][:1]:
        _check_same_config(trial)  # what holds for one of them holds for all
    for trial in ended:
        trial.read_results(score)
    return proposals


def _check_same_score(trials: list[Trial], score: Score) -> None:
    """ConfigError if the best checkpoint of a trial is picked by another score, which has no rank."""
    for trial in trials:
        if trial.config is not None and (other := score_of(trial)) != score:
            raise ConfigError(
                f"task={trial.config['task']['name']} has the score {other.name}, and other trials have "
                f"{score.name}: they cannot be ranked together; sweep each task by itself"
            )


def _is_finished(trial: Trial) -> bool:
    return read_record(trial.folder).get("exit_code") == 0


def _check_same_config(trial: Trial) -> None:
    """ConfigError if the run in the trial's folder was started with another config."""
    if not (trial.folder / CONFIG).is_file():
        return
    finished = _is_finished(trial)
    if finished or has_checkpoint(trial.folder):
        as_resumed(trial.config, trial.folder, finished)


def _check_same_search(settings: Sweep, earlier: Results, folder: Path) -> None:
    """ConfigError if Optuna's trials were proposed by other settings than these."""
    if "optuna" not in (settings.name, earlier.settings.get("name")):
        return
    for key in FIXED_SETTINGS:
        before, now = earlier.settings.get(key), getattr(settings, key)
        if before != now:
            raise ConfigError(
                f"sweep.{key} is {show(now)}, but {folder} was started with {show(before)}; choose another "
                f"name, or set sweep.{key} back"
            )
