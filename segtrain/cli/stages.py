"""`stages:` of a recipe: runs one after another, each from the best checkpoint of the one before.

A stage is a list of words as they could be typed: `[model=fcn16s, optimizer.lr=1e-7]`. Its run is that of the
command line with these words put in front of the typed ones, so that what is typed wins in every stage. Each
is an ordinary run in a folder of its own, RUN/stage1, RUN/stage2 …
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segtrain.cli import launch
from segtrain.cli.compose import Composer
from segtrain.cli.overrides import Typed, parse_overrides
from segtrain.errors import ConfigError, SegtrainError
from segtrain.run.debug_log import debug_log
from segtrain.run.existing import remove_run, run_folder_of
from segtrain.run.folder import create
from segtrain.run.layout import CONFIG
from segtrain.run.lock import Lock
from segtrain.run.record import read_record
from segtrain.run.stop import Stop
from segtrain.text import say

WHOLE = ("name", "resume", "init", "dry_run", "stages", "experiment")
"""Keys that belong to all stages together."""
LENGTHS = {"trainer.steps", "trainer.epochs"}
"""Two ways to say one thing: either, typed, takes the place of both."""


@dataclass
class Stage:
    """One of `count` stages; words: as the recipe has them."""

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
    """The stages with their configs composed. words: the command line's."""
    composer = Composer("train", config_dir)
    planned = []
    with composer.ready():
        for number, own in enumerate(stages, 1):
            stage = Stage(number, len(stages), own, {})
            with _named(stage):
                stage.config = {**composer.compose(_overrides(own, words, composer)), "stages": None}
            planned.append(stage)
    return planned


def _overrides(own: list[str], words: list[str], composer: Composer) -> list[Typed]:
    """The stage's words, then the typed ones."""
    typed = {one.key for one in parse_overrides(words, composer.keys)[0]}
    kept = []
    for word in own:
        parsed, wishes = parse_overrides([word], composer.keys)
        key = next(iter(wishes), parsed[0].key if parsed else word.partition("=")[0])
        if key in WHOLE or wishes:
            raise ConfigError(
                f"{word} cannot differ between stages; type it on the command line, for all of them"
            )
        if not (key in LENGTHS and typed & LENGTHS):
            kept.append(word)
    return parse_overrides([*kept, *words], composer.keys)[0]


def check(stages: list[Stage]) -> None:
    """The check that needs the tables, and so torch: what is wrong in the last stage is said before the first
    begins."""
    for stage in stages:
        with _named(stage):
            stage.config = launch.check("train", stage.config)


def train(
    stages: list[Stage], config: dict, wish: str | None, stop: Stop, words: list[str]
) -> tuple[Path | None, dict]:
    """Trains one stage after another; the last one's folder (None for a dry run) and scores. What finished
    before is not run again."""
    if config["dry_run"]:
        return None, _dry_run(stages, stop)
    if config["resume"] not in (None, "auto"):
        raise ConfigError(
            f"resume={config['resume']} goes on with one run, not with stages; take name=NAME resume=auto "
            f"for all of them"
        )
    folder, made = run_folder_of(config, wish)
    if (folder / CONFIG).exists():
        raise ConfigError(f"{folder} is the folder of a single run; choose another name for the stages")
    with Lock(folder), debug_log(folder):
        try:
            check(stages)
            return _train_each(stages, folder, stop, words)
        except SegtrainError:
            # Under the lock, as for a single run: what could not begin leaves its name free.
            if made and not any(folder.glob("stage*")):
                remove_run(folder)
            raise


def _dry_run(stages: list[Stage], stop: Stop) -> dict:
    """Each stage by itself: nothing is saved, so there is nothing to start from; nor are published weights
    asked for twice."""
    check(stages)
    scores: dict = {}
    for stage in stages:
        stop.raise_if_requested()
        say(_title(stage))
        config = stage.config
        if stage.number > 1:
            unweighted = {"weights": "none"} if "weights" in config["model"] else {}
            config = {**config, "init": None, "model": {**config["model"], **unweighted}}
        with _named(stage):
            scores = launch.command("train")(config, None, stop)
    return scores


def _train_each(stages: list[Stage], folder: Path, stop: Stop, words: list[str]) -> tuple[Path, dict]:
    place, scores = folder, {}
    for stage in stages:
        stop.raise_if_requested()
        before, place = place, folder / stage.folder_name
        if stage.number > 1:
            stage.config = {**stage.config, "init": str(before)}
        with _named(stage):
            record = read_record(place)
            if record.get("exit_code") == 0:
                launch.as_resumed(stage.config, place, finished=True)
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
    """Lets every error of the block begin with the stage that it is of."""
    try:
        yield
    except SegtrainError as error:
        error.args = (f"{stage}: {error}",)
        raise
