"""Comparison of several runs on the same images: table and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segtrain.errors import printable
from segtrain.evaluate.difference import (
    OF_THE_SPLIT,
    Spread,
    difference,
    protocol_difference,
    same_but_seed,
)
from segtrain.evaluate.difference import lines as difference_lines
from segtrain.evaluate.interval import Intervals
from segtrain.evaluate.loop import Scores
from segtrain.model import MODEL
from segtrain.model.unet import SMALL
from segtrain.sample import Number
from segtrain.text import amount, number, table


@dataclass(frozen=True)
class Entry:
    """The scores of one run. name: heading of its column. origin: what its weights were initialised from.
    parameters: number of its parameters. other_splits: its scores on further splits, by name. config: that it
    was trained with. validated: protocol of its validation during training, if known. intervals: of its
    scores, on the split and on each further one, in order."""

    run: str
    name: str
    origin: str
    step: int
    parameters: int
    scores: Scores
    other_splits: Mapping[str, Scores] = field(default_factory=dict)
    config: Mapping = field(default_factory=dict)
    validated: Mapping = field(default_factory=dict)
    intervals: Sequence[Intervals] = ()

    @property
    def all_scores(self) -> list[Scores]:
        """Its scores on the split and on each further one."""
        return [self.scores, *self.other_splits.values()]

    @property
    def seconds(self) -> float:
        """Seconds per image, reading and scoring included."""
        return self.scores.protocol["seconds"] / self.scores.protocol["images"]

    def heads(self, score: str) -> list[str]:
        """The lines of text above the run's column of the picture."""
        return [
            self.name,
            f"{score} {number(self.scores.value(score), 3)}",
            f"{amount(self.parameters)} parameters",
            f"{self.seconds:.2g} s an image",
            self.origin,
        ]

    def record(self) -> dict:
        """The entry of the run in compare.json."""
        about = {"name": self.name, "origin": self.origin, "step": self.step, "parameters": self.parameters}
        plain = {
            "run": self.run,
            **about,
            "seconds_per_image": round(self.seconds, 4),
            **_numbers(self.scores),
        }
        if self.other_splits:
            plain["other_splits"] = {name: _numbers(scores) for name, scores in self.other_splits.items()}
        return plain


def _numbers(scores: Scores) -> dict:
    """The scores that are one number, by key."""
    return {key: one.value for key, one in scores.numbers.items() if isinstance(one, Number)}


def lines(entries: Sequence[Entry], score: str, lower_is_better: bool, split: str = "") -> list[str]:
    """The table for the terminal, best run first: the task's score, scores of further metrics, the same for
    further splits, parameters and time per image. split: name of the first split, shown if there are
    others. Runs that differ in their seed only get a further row: mean ± standard deviation."""
    shown = [score, *_of_further_metrics(entries, score)]
    others = list(entries[0].other_splits)
    named = [f" {name}" for name in (split, *others)] if others else [""]
    labels = [f"{_label(entries, key)}{name}" for name in named for key in shown]
    rows = [
        (
            entry.run,
            entry.name,
            *(number(scores.value(key)) for scores in entry.all_scores for key in shown),
            amount(entry.parameters),
            f"{entry.seconds:.3f}",
        )
        for entry in ranked(entries, score, lower_is_better)
    ]
    for alike in _of_seeds(entries):
        spreads = [_spread(alike, place, key) for place in range(1 + len(others)) for key in shown]
        name = f"{len(alike)} seeds of {alike[0].run}"
        rows.append((name, alike[0].name, *map(str, spreads), amount(alike[0].parameters), ""))
    return table(("run", "network", *labels, "parameters", "s/image"), rows, left=(0, 1))


def ranked(entries: Sequence[Entry], score: str, lower_is_better: bool) -> list[Entry]:
    """The best run first, runs without a score last."""

    def rank(entry: Entry) -> tuple[bool, float]:
        value = entry.scores.value(score)
        return value is None, 0.0 if value is None else value if lower_is_better else -value

    return sorted(entries, key=rank)


def _of_seeds(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries of runs that differ in their seed only, in lists of two and more."""
    by_run = {entry.run: entry for entry in entries}
    found = same_but_seed({run: entry.config for run, entry in by_run.items()})
    return [[by_run[run] for run in runs] for runs in found]


def _spread(entries: Sequence[Entry], place: int, key: str) -> Spread:
    return Spread.of([entry.all_scores[place].value(key) for entry in entries])


def seeds_record(entries: Sequence[Entry], score: str) -> list[dict]:
    """Mean and standard deviation of the score, on the first split, of runs that differ in their seed
    only."""
    return [
        {"runs": [entry.run for entry in alike], score: _spread(alike, 0, score)._asdict()}
        for alike in _of_seeds(entries)
    ]


def differences(
    entries: Sequence[Entry], score: str, lower_is_better: bool, names: Sequence[str]
) -> tuple[dict[str, list[dict]], list[str]]:
    """The differences between the best run and each other one, paired over the images, for compare.json (by
    split) and as lines for the terminal. Runs that were scored by different protocols are not compared, and
    a line names what differs. names: of the splits."""
    best, *others = ranked(entries, score, lower_is_better)
    made: dict[str, list[dict]] = {}
    said: list[str] = []
    for place, name in enumerate(names):
        found = []
        for other in others:
            first, second = best, other
            values = [entry.all_scores[place].value(score) for entry in (first, second)]
            if None not in values and (values[0] < values[1]) != lower_is_better and values[0] != values[1]:
                first, second = second, first  # on a further split the order may be another one
            pair = [entry.all_scores[place] for entry in (first, second)]
            unlike = protocol_difference(*(scores.protocol for scores in pair))
            found.append(
                difference(
                    (first.run, second.run),
                    tuple(scores.value(score) for scores in pair),
                    tuple(entry.intervals[place] for entry in (first, second)),
                    score,
                    lower_is_better,
                    unlike and f"their protocols differ in {unlike}",
                )
            )
        made[name] = [one.record() for one in found]
        label = _label(entries, score) + (f" on {name}" if len(names) > 1 else "")
        said += difference_lines(found, label, best.intervals[place])
    return made, said


def notes(entries: Sequence[Entry]) -> list[str]:
    """A line for each run whose validation during training had another protocol than that of the first run:
    the scores in their metrics.jsonl cannot be compared, those made here can."""
    first, *others = entries
    said = []
    for entry in others:
        unlike = protocol_difference(first.validated, entry.validated, (*OF_THE_SPLIT, "metric"))
        if unlike:
            said.append(
                f"protocol  {first.run} and {entry.run} were validated differently in training: {unlike}; "
                f"here alike"
            )
    return said


def _label(entries: Sequence[Entry], key: str) -> str:
    found = (entry.scores.numbers[key].label for entry in entries if key in entry.scores.numbers)
    return next(found, key)


def _of_further_metrics(entries: Sequence[Entry], score: str) -> list[str]:
    """Keys of the scores of all metrics but the one that gives the task's score."""
    keys = dict.fromkeys(key for entry in entries for key in entry.scores.further)
    return [key for key in keys if key != score]


def origin_of(config: Mapping) -> str:
    """What the weights of a run were initialised from, such as 'resnet50 of ImageNet'."""
    if config.get("init"):
        return f"from {printable(Path(config['init']).name)}"
    name, options = MODEL.check(config["model"])
    values = {**{key: option.default for key, option in MODEL.options(name).items()}, **options}
    encoder = values.get("encoder", "VGG16")
    # weights=null means ImageNet weights, except for the small encoder, which has none.
    weights = values.get("weights", "none") or ("none" if encoder == SMALL else "imagenet")
    if weights == "none":
        return "from scratch"
    return f"{encoder} of ImageNet" if weights == "imagenet" else f"from {printable(Path(weights).name)}"
