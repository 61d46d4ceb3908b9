"""How the trials of a sweep are chosen: all combinations, or proposals of Optuna."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from segtrain.errors import CheckpointError, ConfigError, SegtrainError
from segtrain.settings import Sweep
from segtrain.sweep.trial import Point, Score, Trial

STUDY = "study.db"
"""The study of Optuna in the folder of a sweep, in SQLite."""
NAME = "segtrain"
WAIT_S = 20.0
"""How long a data base that another program holds is waited for."""
MAX_POINTS = 10_000
"""Largest number of points of a space in which no point is proposed twice."""
MAX_ASKED = 50
"""Proposals after which a point is drawn instead."""
NUMBER, ERROR = "number", "error"
"""Attributes of Optuna's trials: the number of our trial, of which there may be several attempts, and what
failed."""


class Search(Protocol):
    """Chooses trials. trials: all that are known, in order; `next` adds to them. prunes: whether `prune` may
    end a trial."""

    trials: list[Trial]
    prunes: bool

    def next(self) -> Trial | None:
        """The next trial to train; None if there is none. A trial whose status is failed is not trained, but
        given to `tell` as it is."""

    def prune(self, trial: Trial, points: list[Point]) -> bool:
        """Whether a running trial, with these validations so far, is to be ended early."""

    def tell(self, trial: Trial) -> None:
        """Takes note of how a trial ended."""


class Grid:
    """Trains each trial of a list that is still waiting."""

    prunes = False

    def __init__(self, trials: list[Trial]):
        self.trials = trials
        self._waiting = [trial for trial in trials if trial.status == "waiting"]

    def next(self) -> Trial | None:
        return self._waiting.pop(0) if self._waiting else None

    def prune(self, trial: Trial, points: list[Point]) -> bool:
        return False

    def tell(self, trial: Trial) -> None:
        pass


class Proposals:
    """Trials proposed by Optuna, in a study that outlives the process.

    Trials that an earlier call left unfinished are resumed first, then the failed ones are repeated, each in
    its own folder. The sampler is seeded anew for each trial by (seed, number of the trial), so that a sweep
    of one trial at a time proposes the same after an interruption.

    space: {key: distribution of Optuna}. make: (number, {key: value}) -> Trial, composed and checked; its
    status is failed if the values do not make a valid config.
    """

    def __init__(
        self,
        settings: Sweep,
        space: Mapping[str, object],
        folder: Path,
        score: Score,
        make: Callable[[int, dict[str, str]], Trial],
    ):
        self._optuna = import_optuna()
        self._settings, self._space, self._make, self._score = settings, dict(space), make, score
        self.prunes = settings.prune
        self._asked: dict[int, object] = {}  # Optuna's trial of each of ours, by number
        self.trials: list[Trial] = []
        path = folder / STUDY
        with study_errors(path):
            self._study = self._optuna.create_study(
                storage=self._optuna.storages.RDBStorage(
                    f"sqlite:///{path.resolve()}", engine_kwargs={"connect_args": {"timeout": WAIT_S}}
                ),
                study_name=NAME,
                load_if_exists=True,
                direction="minimize" if score.lower_is_better else "maximize",
                pruner=self._optuna.pruners.MedianPruner(n_startup_trials=self._startup),
            )
            self._path = path
            self._read()

    @property
    def _startup(self) -> int:
        return self._settings.startup or min(10, max(2, self._settings.trials // 3))

    def _sampler(self, number: int):
        digest = hashlib.sha256(f"{self._settings.seed} {number}".encode()).digest()
        seed = int.from_bytes(digest[:4], "little")
        if self._settings.sampler == "random":
            return self._optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant_liar was experimental before Optuna 5
            return self._optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=self._startup, constant_liar=True
            )

    def _read(self) -> None:
        """Sets the trials that the study knows, and what is left to do for them."""
        states = self._optuna.trial.TrialState
        last: dict[int, object] = {}  # the last attempt of each trial
        for frozen in self._study.get_trials(deepcopy=False):
            # Only a process that was killed in `_ask` leaves a trial without its number.
            last[frozen.user_attrs.get(NUMBER, 1 + max(last, default=0))] = frozen
        self._resumed, self._repeated = [], []
        for number, frozen in sorted(last.items()):
            if frozen.state == states.WAITING:
                continue  # `next` asks for it
            values = frozen.params
            if frozen.state == states.RUNNING:
                self._study.sampler = self._sampler(number)
                values = self._completed(number, self._optuna.trial.Trial(self._study, frozen._trial_id))
            trial = self._made(number, values)
            self.trials.append(trial)
            if frozen.state == states.RUNNING:
                self._resumed.append(trial)
            elif frozen.state == states.FAIL:
                trial.error = frozen.user_attrs.get(ERROR, trial.error)
                self._repeated.append((trial, frozen.params))
            else:
                trial.status = "finished" if frozen.state == states.COMPLETE else "pruned"
                trial.error = ""

    def _made(self, number: int, values: Mapping) -> Trial:
        return self._make(number, {key: as_text(values[key]) for key in self._space})

    def next(self) -> Trial | None:
        with study_errors(self._path):
            while self._resumed:
                trial = self._resumed.pop(0)
                if trial.status == "waiting":
                    return trial
                self.tell(trial)
            if self._repeated:
                trial, values = self._repeated.pop(0)
                self._study.enqueue_trial(values, user_attrs={NUMBER: trial.number})
            elif len(self.trials) >= self._settings.trials:
                return None
            elif not self._waits() and (points := points_of(self._space)):
                if (values := self._untried(points)) is None:
                    return None
                self._study.enqueue_trial(values)
            return self._ask()

    def _waits(self) -> bool:
        """Whether a call that was killed has left a trial that it had not asked for yet."""
        return bool(self._study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState.WAITING,)))

    def _untried(self, points: list[dict]) -> dict | None:
        """What the sampler proposes of the points that no trial has; None if all of them have one.

        A sampler proposes good values again, and their training, of the same seed, would give the same score.
        So a copy of the study in memory is asked until the values are new; after MAX_ASKED they are drawn."""
        tried = [trial.swept for trial in self.trials]
        left = [one for one in points if {key: as_text(value) for key, value in one.items()} not in tried]
        sampler = self._sampler(self._following)
        memory = self._optuna.create_study(sampler=sampler, direction=self._study.direction)
        memory.add_trials(self._study.get_trials(deepcopy=False))
        for _ in range(MAX_ASKED if left else 0):
            values = memory.ask(self._space).params
            if values in left:
                return values
        return random.Random(self._following).choice(left) if left else None

    @property
    def _following(self) -> int:
        """The number of the next trial."""
        return 1 + max((trial.number for trial in self.trials), default=0)

    def _ask(self) -> Trial:
        following = self._following
        self._study.sampler = self._sampler(following)
        asked = self._study.ask()
        number = asked.user_attrs.get(NUMBER, following)
        trial = self._made(number, self._completed(number, asked))
        self.trials = [one for one in self.trials if one.number != number] + [trial]
        self.trials.sort(key=lambda one: one.number)
        return trial

    def _completed(self, number: int, asked) -> dict[str, object]:
        """The values of a trial of Optuna, each proposed unless the study holds it already."""
        asked.set_user_attr(NUMBER, number)
        self._asked[number] = asked
        return {key: _suggested(asked, key, one) for key, one in self._space.items()}

    def prune(self, trial: Trial, points: list[Point]) -> bool:
        asked = self._asked[trial.number]
        with study_errors(self._path):
            frozen = self._study.get_trials(deepcopy=False)[asked.number]
            for point in points:
                if point.step not in frozen.intermediate_values:
                    asked.report(point.value, point.step)
            return bool(points) and asked.should_prune()

    def tell(self, trial: Trial) -> None:
        """A trial that was stopped stays as it is in the study: the next call resumes it."""
        if trial.status == "stopped":
            return
        states = self._optuna.trial.TrialState
        if trial.status == "finished" and trial.best is None:
            trial.status, trial.error = "failed", f"no validation of it has the score {self._score.name}"
        state = {"finished": states.COMPLETE, "pruned": states.PRUNED}.get(trial.status, states.FAIL)
        asked = self._asked[trial.number]
        with study_errors(self._path):
            if trial.error:
                asked.set_user_attr(ERROR, trial.error)
            self._study.tell(asked, trial.best.value if state == states.COMPLETE else None, state)


def _suggested(asked, key: str, distribution) -> object:
    """The value that Optuna proposes for a key."""
    if choices := getattr(distribution, "choices", None):
        return asked.suggest_categorical(key, choices)
    suggest = asked.suggest_int if isinstance(distribution.low, int) else asked.suggest_float
    step = {} if distribution.log else {"step": distribution.step}
    return suggest(key, distribution.low, distribution.high, log=distribution.log, **step)


def import_optuna():
    """The module optuna, silent below warnings; ConfigError if it is not installed."""
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise ConfigError(
            "sweep=optuna needs Optuna, which is not installed; run: pip install 'segtrain[sweep]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextlib.contextmanager
def study_errors(path: Path) -> Iterator[None]:
    """Turns errors of the study's data base into a CheckpointError that names its file."""
    import sqlalchemy.exc

    optuna = importlib.import_module("optuna")
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        if isinstance(error.__cause__, SegtrainError):
            raise error.__cause__ from error
        cause = getattr(error, "orig", None) or error.__cause__ or error
        held = "locked" in str(cause)
        advice = (
            "close the program that holds it, and repeat the command"
            if held
            else "free some space, or move the file away to begin the study anew"
        )
        raise CheckpointError(
            f"{path} cannot be read or written: {str(cause).splitlines()[0]}; {advice}"
        ) from error


def as_text(value: object) -> str:
    """A proposed value as it is typed."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class Interval(NamedTuple):
    """Numbers from `low` to `high`: whole ones if both ends are integers. log: whether they are drawn on a
    logarithmic scale."""

    low: float
    high: float
    log: bool


def distributions(space: Mapping[str, Interval | list[str]]) -> dict[str, object]:
    """{key: distribution of Optuna} of intervals and lists of values. A list of equally spaced integers in
    rising order is integer with that step, any other list a choice without an order. ConfigError for an
    interval that Optuna does not take."""
    made = import_optuna().distributions
    found: dict[str, object] = {}
    for key, values in space.items():
        if isinstance(values, list):
            numbers = _equally_spaced(values)
            found[key] = (
                made.IntDistribution(numbers[0], numbers[-1], step=numbers[1] - numbers[0])
                if numbers
                else made.CategoricalDistribution(values)
            )
            continue
        whole = isinstance(values.low, int) and isinstance(values.high, int)
        kind = made.IntDistribution if whole else made.FloatDistribution
        try:
            found[key] = kind(values.low, values.high, log=values.log)
        except ValueError as error:
            raise ConfigError(f"{key} from {values.low} to {values.high} is no interval: {error}") from error
    return found


def points_of(space: Mapping[str, object]) -> list[dict]:
    """All points of a space of at most MAX_POINTS points, as {key: value}; [] for a larger one."""
    values = []
    for one in space.values():
        if hasattr(one, "choices"):
            values.append(list(one.choices))
        elif isinstance(one.low, int) and one.high - one.low < MAX_POINTS * one.step:
            values.append(list(range(one.low, one.high + 1, one.step)))
        else:
            return []
    if math.prod(map(len, values)) > MAX_POINTS:
        return []
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*values)]


def _equally_spaced(texts: list[str]) -> list[int]:
    """The integers that the texts are, if they rise in equal steps; else []."""
    try:
        numbers = [int(text) for text in texts]
    except ValueError:
        return []
    steps = {after - before for before, after in itertools.pairwise(numbers)}
    return numbers if len(steps) == 1 and min(steps) > 0 else []


def ends_of(space: Mapping[str, object]) -> list[dict[str, str]]:
    """Two points of the space, far from each other: the first and the last value of each key."""

    def end(distribution, place: int) -> str:
        values = getattr(distribution, "choices", None) or (distribution.low, distribution.high)
        return as_text(values[place])

    return [{key: end(one, place) for key, one in space.items()} for place in (0, -1)]
