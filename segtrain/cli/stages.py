"""`stages:` of an experiment: runs one after another, each initialised from the best checkpoint of the
previous one.

A stage is a list of overrides, `[model=fcn16s, optimizer.lr=1e-7]`. They are applied before the overrides of
the command line, which therefore win in every stage. Each stage is an ordinary run in its own folder,
RUN/stage1, RUN/stage2 …
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segtrain.cli import launch
from segtrain.cli.compose import Composer
from segtrain.cli.lazy import check as check_config
from segtrain.cli.lazy import command
from segtrain.cli.on_ranks import refuse_stages
from segtrain.cli.overrides import Typed, parse_overrides
from segtrain.cli.resumed import as_resumed, requeued_if_asked
from segtrain.errors import ConfigError, SegtrainError
from segtrain.run.debug_log import debug_log
from segtrain.run.existing import remove_run, run_folder_of
from segtrain.run.folder import create
from segtrain.run.layout import CONFIG
from segtrain.run.lock import Lock
from segtrain.run.record import read_record
from segtrain.run.stop import Stop
from segtrain.text import say

WHOLE = ("name", "resume", "init", "dry_run", "stages", "experiment", "trainer.requeue")
"""Keys that may be set on the command line only, for all stages."""
LENGTHS = {"trainer.steps", "trainer.epochs"}
"""Two keys for the length of a run: either of them on the command line replaces both in a stage."""


@dataclass
class Stage:
    """Stage `number` of `count`. words: its overrides as the experiment lists them. config: composed, without
    stages."""

    number: int
    count: int
    words: list[str]
    config: dict

    @property
    def folder_name(self) -> str:
        return f"stage{self.number}"

    def __str__(self) -> str:
        return f"stage {self.number} of {self.count}"


def plan(stages: list[list[str]], words: list[str], config_dir: str | None) -> list[Stage]:
    """Composes the config of each stage. words: overrides of the command line."""
    composer = Composer("train", config_dir)
    planned = []
    with composer.ready():
        for number, own in enumerate(stages, 1):
            stage = Stage(number, len(stages), own, {})
            with _named(stage):
                stage.config = {**composer.compose_run(_overrides(own, words, composer)), "stages": None}
            planned.append(stage)
    return planned


def _overrides(own: list[str], words: list[str], composer: Composer) -> list[Typed]:
    """The overrides of a stage followed by those of the command line. ConfigError for keys that cannot differ
    between stages."""
    typed = {one.key for one in parse_overrides(words, composer.keys)[0]}
    kept = []
    for word in own:
        parsed, hydra_values = parse_overrides([word], composer.keys)
        key = next(iter(hydra_values), parsed[0].key if parsed else word.partition("=")[0])
        if key in WHOLE or hydra_values:
            raise ConfigError(
                f"{word} cannot differ between stages; type it on the command line, for all of them"
            )
        if not (key in LENGTHS and typed & LENGTHS):
            kept.append(word)
    return parse_overrides([*kept, *words], composer.keys)[0]


def check(stages: list[Stage]) -> None:
    """Checks the groups of all stages against the tables (which imports torch) before the first stage
    starts."""
    for stage in stages:
        with _named(stage):
            stage.config = check_config("train", stage.config)


def train_all(
    config: dict, words: list[str], config_dir: str | None, run_dir: str | None, stop: Stop, line: list[str]
) -> tuple[Path | None, dict]:
    """Trains a composed config: its stages, or the one run that it is without stages; returns what `train`
    does. words: the overrides. line: the command line, for run.json."""
    placed = bool(config["name"] or run_dir)
    resumable = placed if config["resume"] == "auto" else config["resume"] is not None
    with requeued_if_asked([config], resumable):
        if not config.get("stages"):
            return launch.train({**config, "stages": None}, run_dir, stop, line)
        return train(plan(config["stages"], words, config_dir), config, run_dir, stop, line)


def train(
    stages: list[Stage], config: dict, run_dir: str | None, stop: Stop, words: list[str]
) -> tuple[Path | None, dict]:
    """Trains the stages in order; returns the folder of the last stage (None for a dry run) and its scores.
    Finished stages are skipped."""
    refuse_stages()
    if config["dry_run"]:
        return None, _dry_run(stages, stop)
    if config["resume"] not in (None, "auto"):
        raise ConfigError(
            f"resume={config['resume']} resumes a single run, not stages; use name=NAME resume=auto to "
            f"resume all of them"
        )
    folder, made = run_folder_of(config, run_dir)
    if (folder / CONFIG).exists():
        raise ConfigError(f"{folder} is the folder of a single run; choose another name for the stages")
    with Lock(folder), debug_log(folder):
        try:
            check(stages)
            return _train_each(stages, folder, stop, words)
        except SegtrainError:
            # Under the lock, as for a single run: a run that could not start frees its name.
            if made and not any(folder.glob("stage*")):
                remove_run(folder)
            raise


def _dry_run(stages: list[Stage], stop: Stop) -> dict:
    """Dry runs of all stages, independent of one another: nothing is saved that the next stage could be
    initialised from. Pretrained weights are loaded for the first stage only."""
    check(stages)
    scores: dict = {}
    for stage in stages:
        stop.raise_if_requested()
        say(_title(stage))
        config = stage.config
        if stage.number > 1:
            no_weights = {"weights": "none"} if "weights" in config["model"] else {}
            config = {**config, "init": None, "model": {**config["model"], **no_weights}}
        with _named(stage):
            scores = command("train")(config, None, stop)
    return scores


def _train_each(stages: list[Stage], folder: Path, stop: Stop, words: list[str]) -> tuple[Path, dict]:
    place, scores = folder, {}
    for stage in stages:
        stop.raise_if_requested()
        previous, place = place, folder / stage.folder_name
        if stage.number > 1:
            stage.config = {**stage.config, "init": str(previous)}
        with _named(stage):
            record = read_record(place)
            if record.get("exit_code") == 0:
                as_resumed(stage.config, place, finished=True)
                say(f"{_title(stage)} finished before: {place}")
                scores = record.get("scores") or {}
                continue
            say(f"{_title(stage)} -> {place}")
            made = not place.is_dir()
            if made:
                create(folder, stage.folder_name)
            scores = launch.train_in(place, made, stage.config, stop, words)
    return place, scores


def _title(stage: Stage) -> str:
    return " ".join([f"--- {stage}:", *stage.words])


@contextlib.contextmanager
def _named(stage: Stage) -> Iterator[None]:
    """Prefixes the errors of the block with the stage."""
    try:
        yield
    except SegtrainError as error:
        error.args = (f"{stage}: {error}",)
        raise
