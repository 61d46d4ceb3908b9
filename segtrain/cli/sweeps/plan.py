"""What the command line of a sweep asks for: its settings, what the trials share, and what they differ in."""

from __future__ import annotations

from dataclasses import dataclass, replace

from segtrain.cli.compose import Composer
from segtrain.cli.overrides import Typed, parse_overrides
from segtrain.cli.resumed import check
from segtrain.commands import COMMANDS
from segtrain.errors import ConfigError
from segtrain.settings import Launcher, Sweep
from segtrain.sweep.search import Interval, distributions
from segtrain.sweep.trial import Trial

NOT_SWEPT = ("name", "resume", "run", "input", "output", "dry_run")
"""Keys that apply to the sweep as a whole, as its own sections do."""


@dataclass(frozen=True)
class Plan:
    """What a sweep's command line asks for. fixed: overrides of every trial. swept: those that differ.
    single: what makes a trial's command line that of a single run where the experiment holds a sweep."""

    composer: Composer
    settings: Sweep
    launcher: Launcher
    fixed: list[Typed]
    swept: list[Typed]
    single: list[str]

    def trial(self, number: int, swept: dict[str, str]) -> Trial:
        """A composed trial; its status is failed if its overrides do not compose."""
        by_key = {one.key: f"{one.key}={swept[one.key]}" for one in self.swept}
        words = [*map(_plain_line, self.fixed), *by_key.values(), *self.single]
        trial = Trial(number, {key: swept[key] for key in by_key}, words)
        try:
            config = self.composer.compose_run(parse_overrides(words, self.composer.keys)[0])
            if config["stages"]:
                raise ConfigError(
                    "a sweep takes no stages: each of its trials is a single run; add stages=null to run the "
                    "experiment without them"
                )
            trial.config = {**config, "stages": None}
        except ConfigError as error:
            trial.status, trial.error = "failed", str(error)
        return trial


def checked(trial: Trial) -> Trial:
    """The trial with the options of its groups checked too, which imports torch."""
    if trial.config is not None:
        try:
            trial.config = check("train", trial.config)
        except ConfigError as error:
            trial.status, trial.error, trial.config = "failed", str(error), None
    return trial


def planned(words: list[str], composer: Composer) -> tuple[Plan, dict, dict[str, str]]:
    """The plan, the values of the keys in NOT_SWEPT, and those of Hydra's own keys. ConfigError if a sweep
    does not allow them."""
    keys = composer.keys
    typed, hydra_values = parse_overrides(words, keys, multirun=True)
    single = [one for one in typed if not one.sweep]
    settings, launcher = _sections(composer, single)
    over = [f"{key}={text}" for key, text in (settings.over or {}).items()]
    typed, _ = parse_overrides([*over, *words], keys, multirun=True)
    common = {one.key: one.value for one in typed if _of_sweep(one)}
    for one in typed:
        if _of_sweep(one) and one.sweep:
            raise ConfigError(f"{one.key}={one.text}: {one.key} cannot differ between the trials of a sweep")
    if common.get("dry_run") or common.get("resume") not in (None, "auto"):
        raise ConfigError(
            "a sweep takes neither dry_run nor resume=FOLDER; to resume a sweep, repeat its command with "
            "the same name=NAME"
        )
    if "hydra.run.dir" in hydra_values:
        raise ConfigError(
            "hydra.run.dir is for a single run; a sweep takes name=NAME or hydra.sweep.dir=FOLDER"
        )
    own = [one for one in typed if not _of_sweep(one)]
    swept = [one for one in own if one.sweep]
    _check_used(typed, settings, launcher)
    fixed = [one for one in own if not one.sweep]
    experiment = composer.compose(fixed)
    held = [name for name in COMMANDS["train"].of_sweep if experiment[name]["name"] is not None]
    single = [f"{name}=null" for name in dict.fromkeys(["sweep", *held])] if held else []
    plan = Plan(composer, settings, launcher, fixed, swept, single)
    if settings.name == "optuna" and not swept:
        # What Hydra cannot read as several values, such as interval(a,b), is a text, which a number refuses.
        if (only := checked(plan.trial(0, {}))).status == "failed":
            raise ConfigError(only.error)
        raise ConfigError(
            "sweep=optuna has nothing to choose; give at least one key several values, such as "
            "'optimizer.lr=tag(log,interval(1e-4,1e-1))'"
        )
    over = {one.key: _plain_line(one).partition("=")[2] for one in swept}
    return replace(plan, settings=replace(settings, over=over)), common, hydra_values


def _check_used(typed: list[Typed], settings: Sweep, launcher: Launcher) -> None:
    """ConfigError for a typed option of the sweep or of its launcher that would change nothing."""
    for one in typed:
        section, _, name = one.key.partition(".")
        if section == "sweep" and name not in ("name", "over") and settings.name != "optuna":
            raise ConfigError(f"{one.key}={one.text} is for sweep=optuna; add it, or leave {one.key} out")
        if section == "launcher" and name not in ("name", "jobs") and launcher.name != "submitit":
            raise ConfigError(
                f"{one.key}={one.text} is for launcher=submitit; add it, or leave {one.key} out"
            )
        if one.key == "launcher.jobs" and launcher.name is None:
            raise ConfigError(
                f"launcher.jobs={one.text} needs launcher=joblib or launcher=submitit; add one of them, or "
                f"leave launcher.jobs out"
            )


def _of_sweep(one: Typed) -> bool:
    return one.key in NOT_SWEPT or one.key.partition(".")[0] in COMMANDS["train"].of_sweep


def _sections(composer: Composer, typed: list[Typed]) -> tuple[Sweep, Launcher]:
    config = composer.compose(typed)
    return Sweep(**config["sweep"]), Launcher(**config["launcher"])


def grid_of(plan: Plan) -> list[Trial]:
    """All combinations of the swept values, in the syntax and order of Hydra's basic sweeper (a,b, choice(…),
    range(…), glob(…))."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.errors import HydraException

    parsed = _parsed(plan)
    for key, override in parsed.items():
        if override.is_interval_sweep():
            raise ConfigError(
                f"{key}={plan.settings.over[key]} names no values; all combinations take a,b or "
                f"choice(a,b), range(from,to,step) or glob(*); an interval needs sweep=optuna"
            )
    try:
        [batch] = BasicSweeper.split_arguments(list(parsed.values()), None)
    except HydraException as error:
        raise ConfigError(f"--multirun: {str(error).splitlines()[0]}") from error
    lines = dict.fromkeys(map(tuple, batch))  # a combination that is given twice is one run
    pairs = [dict(line.split("=", 1) for line in combination) for combination in lines]
    trials = [plan.trial(number, swept) for number, swept in enumerate(pairs, 1)]
    if not trials:
        raise ConfigError(
            "--multirun: the swept values give no trial; give each swept key at least one value"
        )
    return trials


def _parsed(plan: Plan) -> dict:
    """{swept key: parsed override of Hydra}."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parser = OverridesParser.create(config_loader=plan.composer)
        parsed = parser.parse_overrides([_plain_line(one) for one in plan.swept])
    except HydraException as error:
        raise ConfigError(f"--multirun: {str(error).splitlines()[0]}") from error
    return {one.key: override for one, override in zip(plan.swept, parsed, strict=True)}


def space_of(plan: Plan) -> dict[str, object]:
    """{swept key: distribution of Optuna}: of interval(a,b), int(interval(a,b)), both on a logarithmic scale
    inside tag(log,…), and of listed values (`segtrain.sweep.search.distributions`), where a value that is
    given twice counts once. ConfigError for a tag that would change nothing."""
    from hydra.core.override_parser.types import IntervalSweep

    space: dict = {}
    for key, override in _parsed(plan).items():
        value = override.value()
        of_interval = isinstance(value, IntervalSweep)
        if unused := sorted(set(getattr(value, "tags", ())) - ({"log"} if of_interval else set())):
            raise ConfigError(
                f"{key}={plan.settings.over[key]}: the tag {unused[0]} has no meaning there; allowed: "
                f"tag(log,interval(LOW,HIGH))"
            )
        if of_interval:
            space[key] = Interval(value.start, value.end, "log" in value.tags)
        else:
            space[key] = list(dict.fromkeys(override.sweep_string_iterator()))
    return distributions(space)


def _plain_line(one: Typed) -> str:
    # The ++ is for composition only; without it the keys are those that the user typed.
    return one.line.removeprefix("++")
