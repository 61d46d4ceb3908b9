"""Comparison of several runs on the same images: table and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segtrain.errors import printable
from segtrain.evaluate.loop import Scores
from segtrain.model import MODEL
from segtrain.model.unet import SMALL
from segtrain.sample import Number
from segtrain.text import amount, number, table


@dataclass(frozen=True)
class Entry:
    """The scores of one run. name: heading of its column. origin: what its weights were initialised from.
    parameters: number of its parameters. other_splits: its scores on further splits, by
    name."""

    run: str
    name: str
    origin: str
    step: int
    parameters: int
    scores: Scores
    other_splits: Mapping[str, Scores] = field(default_factory=dict)

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
        plain = {"run": self.run, **about, "seconds_per_image": round(self.seconds, 4), **_means(self.scores)}
        if self.other_splits:
            plain["other_splits"] = {name: _means(scores) for name, scores in self.other_splits.items()}
        return plain


def _means(scores: Scores) -> dict:
    return {key: one.value for key, one in scores.numbers.items() if isinstance(one, Number)}


def lines(entries: Sequence[Entry], score: str, lower_is_better: bool, split: str = "") -> list[str]:
    """The table for the terminal, best run first: the task's score, scores of further metrics, the same for
    further splits, parameters and time per image. split: name of the first split, shown if there are
    others."""
    shown = [score, *_of_further_metrics(entries, score)]
    others = list(entries[0].other_splits)
    named = [f" {name}" for name in (split, *others)] if others else [""]
    labels = [f"{_label(entries, key)}{name}" for name in named for key in shown]

    def rank(entry: Entry) -> tuple[bool, float]:
        value = entry.scores.value(score)
        return value is None, 0.0 if value is None else value if lower_is_better else -value

    rows = [
        (
            entry.run,
            entry.name,
            *(
                number(scores.value(key))
                for scores in (entry.scores, *(entry.other_splits[name] for name in others))
                for key in shown
            ),
            amount(entry.parameters),
            f"{entry.seconds:.3f}",
        )
        for entry in sorted(entries, key=rank)
    ]
    return table(("run", "network", *labels, "parameters", "s/image"), rows, left=(0, 1))


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
