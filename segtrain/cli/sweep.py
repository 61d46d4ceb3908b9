"""`--multirun`: trains one run (trial) for each combination of values, one after another in this process, and
writes a ranked table of the results."""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from segtrain.cli import launch
from segtrain.cli.catalogue import Keys
from segtrain.cli.compose import Composer
from segtrain.cli.overrides import Typed, parse_overrides
from segtrain.cli.resumed import as_resumed, check, has_checkpoint, requeued_if_asked
from segtrain.errors import ConfigError, Interrupted, SegtrainError
from segtrain.run.debug_log import debug_log
from segtrain.run.existing import remove_run
from segtrain.run.folder import check_name, create
from segtrain.run.layout import CONFIG, OUTPUTS
from segtrain.run.lock import Lock
from segtrain.run.record import read_record
from segtrain.run.stop import Stop
from segtrain.run.storage import write_atomic
from segtrain.text import say, table

TABLE = "sweep.csv"
NOT_SWEPT = ("name", "resume", "run", "input", "output", "dry_run")
"""Keys that apply to the sweep as a whole."""


@dataclass
class Trial:
    """One run of a sweep. words: its overrides. swept: those of them that differ between the trials."""

    words: list[str]
    swept: dict[str, str]
    config: dict | None = None
    status: str = "waiting"  # finished, failed, stopped
    error: str = ""
    folder: Path = Path()
    scores: dict = field(default_factory=dict)
    seconds: float = 0.0


def sweep(words: list[str], config_dir: str | None, stop: Stop, command_line: list[str]) -> int:
    """Runs `segtrain train --multirun WORDS`. Returns the exit code: 0 if every trial finished, 1 if some
    failed. Interrupted if a signal came."""
    composer = Composer("train", config_dir)
    with composer.ready():
        common, hydra_values = _common(words, composer.keys)
        trials = expand(words, composer)
        for trial in trials:
            _compose(trial, composer)
    _refuse_if_all_bad(trials)
    place = hydra_values.get("hydra.sweep.dir")
    configs = [trial.config for trial in trials if trial.config is not None]
    with requeued_if_asked(configs, resumable=bool(common.get("name") or place)):
        folder, made = _folder(common, place)
        with Lock(folder), debug_log(folder):
            try:
                return _run_all(trials, folder, stop, command_line)
            except ConfigError:
                if made:
                    remove_run(folder)
                raise


def _common(words: list[str], keys: Keys) -> tuple[dict, dict[str, str]]:
    """The values of the keys in NOT_SWEPT and those of Hydra's own keys. ConfigError if a sweep does not
    allow them."""
    typed, hydra_values = parse_overrides(words, keys, multirun=True)
    found = {one.key: one.value for one in typed if one.key in NOT_SWEPT}
    for one in typed:
        if one.key in NOT_SWEPT and one.sweep:
            raise ConfigError(f"{one.key}={one.text}: {one.key} cannot differ between the trials of a sweep")
    if found.get("dry_run") or found.get("resume") not in (None, "auto"):
        raise ConfigError(
            "a sweep takes neither dry_run nor resume=FOLDER; to resume a sweep, repeat its command with "
            "the same name=NAME"
        )
    if "hydra.run.dir" in hydra_values:
        raise ConfigError(
            "hydra.run.dir is for a single run; a sweep takes name=NAME or hydra.sweep.dir=FOLDER"
        )
    return found, hydra_values


def expand(words: list[str], composer: Composer) -> list[Trial]:
    """The trials: all combinations of the swept values, in the syntax and order of Hydra's basic sweeper
    (a,b, choice(…), range(…), glob(…))."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    typed = [
        one for one in parse_overrides(words, composer.keys, multirun=True)[0] if one.key not in NOT_SWEPT
    ]
    swept = [one.key for one in typed if one.sweep]
    try:
        parsed = OverridesParser.create(config_loader=composer).parse_overrides(
            [_plain_line(one) for one in typed]
        )
        [batch] = BasicSweeper.split_arguments(parsed, None)
    except HydraException as error:
        raise ConfigError(f"--multirun: {str(error).splitlines()[0]}") from error
    trials = []
    for lines in batch:
        pairs = dict(line.split("=", 1) for line in lines)
        trials.append(Trial(list(lines), {key: pairs[key] for key in swept}))
    return trials


def _plain_line(one: Typed) -> str:
    # The ++ is for composition only; without it the keys are those that the user typed.
    return one.line.removeprefix("++")


def _compose(trial: Trial, composer: Composer) -> None:
    try:
        typed, _ = parse_overrides(trial.words, composer.keys)
        trial.config = composer.compose(typed)
        if trial.config["stages"]:
            raise ConfigError(
                "a sweep takes no stages: each of its trials is a single run; add stages=null to run the "
                "experiment without them"
            )
        trial.config["stages"] = None
    except ConfigError as error:
        trial.status, trial.error = "failed", str(error)


def _refuse_if_all_bad(trials: list[Trial]) -> None:
    """ConfigError if no trial is valid: the mistake is in the common overrides, and nothing is run."""
    if not trials:
        raise ConfigError(
            "--multirun: the swept values give no trial; give each swept key at least one value"
        )
    if all(trial.status == "failed" for trial in trials):
        raise ConfigError(trials[0].error)


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


def folder_name(swept: dict[str, str]) -> str:
    """A short folder name made of safe characters of the swept values, with a hash if characters were
    lost."""
    whole = "_".join(f"{key}-{value}" for key, value in swept.items()) or "only"
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", whole).strip("-._")
    if name == whole and len(name) <= 60:
        return name
    digest = hashlib.sha256("\n".join(f"{key}={value}" for key, value in swept.items()).encode()).hexdigest()[
        :8
    ]
    return f"{name[:50].rstrip('-._') or 'run'}-{digest}"


def _run_all(trials: list[Trial], folder: Path, stop: Stop, command_line: list[str]) -> int:
    _check_all(trials)
    _refuse_if_all_bad(trials)
    _name_folders(trials, folder)
    try:
        for number, trial in enumerate(trials, 1):
            stop.raise_if_requested()
            if trial.status == "waiting":
                say(f"--- trial {number} of {len(trials)}: {_in_words(trial)} -> {trial.folder}")
                _run_one(trial, stop, command_line)
                _write_table(trials, folder)
    finally:
        rows = _write_table(trials, folder)
        say(*_as_text(rows), str(folder / TABLE))
    return 1 if any(trial.status == "failed" for trial in trials) else 0


def _check_all(trials: list[Trial]) -> None:
    """Checks the groups of each trial against the tables (which imports torch). Invalid trials are marked as
    failed; the others run."""
    for trial in trials:
        if trial.config is not None:
            try:
                trial.config = check("train", trial.config)
            except ConfigError as error:
                trial.status, trial.error = "failed", str(error)


def _name_folders(trials: list[Trial], folder: Path) -> None:
    """Sets the folder of each trial. Results of finished trials are read from there; ConfigError if a trial
    was started with another config."""
    for trial in trials:
        trial.folder = folder / folder_name(trial.swept)
        if trial.config is None or not (trial.folder / CONFIG).is_file():
            continue
        record = read_record(trial.folder)
        finished = record.get("exit_code") == 0
        if finished or has_checkpoint(trial.folder):
            as_resumed(trial.config, trial.folder, finished)
        if finished:
            trial.status, trial.scores, trial.seconds = (
                "finished",
                record.get("scores") or {},
                record.get("seconds") or 0.0,
            )


def _run_one(trial: Trial, stop: Stop, command_line: list[str]) -> None:
    start = time.monotonic()
    made = not trial.folder.is_dir()
    try:
        if made:
            create(trial.folder.parent, trial.folder.name)
        trial.scores = launch.train_in(trial.folder, made, trial.config, stop, ["segtrain", *command_line])
        trial.status = "finished"
    except Interrupted as error:
        trial.status, trial.error = "stopped", str(error)
        raise
    except SegtrainError as error:
        trial.status, trial.error = "failed", str(error)
        say(f"segtrain: trial {_in_words(trial)} failed: {error}")
    finally:
        trial.seconds = time.monotonic() - start


def _in_words(trial: Trial) -> str:
    return " ".join(f"{key}={value}" for key, value in trial.swept.items()) or "the only one"


def _write_table(trials: list[Trial], folder: Path) -> list[dict]:
    """Writes sweep.csv, best trial first, trials without a score last; returns its rows."""
    ranked = next((trial.scores for trial in trials if "score" in trial.scores), {})
    score, lower_is_better = ranked.get("score", "score"), ranked.get("lower_is_better", False)

    def order(trial: Trial):
        value = trial.scores.get(score)
        return (
            trial.status != "finished",
            value is None,
            (value if lower_is_better else -value) if value is not None else 0,
        )

    rows = [_row(rank, trial, score) for rank, trial in enumerate(sorted(trials, key=order), 1)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / TABLE, text.getvalue().encode("utf-8", "backslashreplace"))
    return rows


def _row(rank: int, trial: Trial, score: str) -> dict:
    return {
        "rank": rank if trial.status == "finished" else "",
        **trial.swept,
        score: trial.scores.get(score, ""),
        "steps": trial.scores.get("step", ""),
        "seconds": round(trial.seconds, 1),
        "folder": str(trial.folder),
        "status": trial.status,
        "error": trial.error,
    }


def _as_text(rows: list[dict]) -> list[str]:
    cells = [
        [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows
    ]
    return table(list(rows[0]), cells, left=range(len(rows[0])))
