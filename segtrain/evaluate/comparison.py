"""Several networks on the same images: a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segtrain.evaluate.loop import Scores

BOUNDARIES = {"boundary F": "boundary_f", "near boundaries": "boundary_miou"}
"""Columns of the table where evaluate.boundary_px asks for them."""


@dataclass(frozen=True)
class Entry:
    """One network. name: what its column is called. origin: what its training started from. parameters:
    learnable numbers."""

    run: str
    name: str
    origin: str
    step: int
    parameters: int
    scores: Scores

    @property
    def seconds(self) -> float:
        """For an image, with reading and scoring it."""
        return self.scores.protocol["seconds"] / self.scores.protocol["images"]

    def heads(self, score: str) -> list[str]:
        """The lines over its column."""
        return [
            self.name,
            f"{score} {_number(self.scores.numbers[score], 3)}",
            f"{_short(self.parameters)} parameters",
            f"{self.seconds:.2g} s an image",
            self.origin,
        ]

    def record(self) -> dict:
        """What compare.json holds of it."""
        means = {name: value for name, value in self.scores.numbers.items() if not isinstance(value, list)}
        about = {"name": self.name, "origin": self.origin, "step": self.step, "parameters": self.parameters}
        return {"run": self.run, **about, "seconds_per_image": round(self.seconds, 4), **means}


def lines(entries: Sequence[Entry], score: str, lower_is_better: bool) -> list[str]:
    """The table for the terminal, best first."""
    width = max(len("run"), *(len(entry.run) for entry in entries))
    names = max(len("network"), *(len(entry.name) for entry in entries))
    more = [
        (words, key)
        for words, key in BOUNDARIES.items()
        if any(key in entry.scores.numbers for entry in entries)
    ]
    heads = "".join(f"  {words}" for words, _ in more)
    rows = [f"{'run':<{width}}  {'network':<{names}}  {score:>8}{heads}  parameters  s/image"]

    def rank(entry: Entry) -> tuple[bool, float]:
        value = entry.scores.numbers[score]
        return value is None, 0.0 if value is None else value if lower_is_better else -value

    for entry in sorted(entries, key=rank):
        numbers = entry.scores.numbers
        beside = "".join(f"  {_number(numbers.get(key), 4):>{len(words)}}" for words, key in more)
        row = f"{_number(numbers[score], 4):>8}{beside}  {_short(entry.parameters):>10}  {entry.seconds:7.3f}"
        rows.append(f"{entry.run:<{width}}  {entry.name:<{names}}  {row}")
    return rows


def _number(value: float | None, digits: int) -> str:
    """A score; there is none where no pixel has a label."""
    return "-" if value is None else f"{value:.{digits}f}"


def _short(count: int) -> str:
    """1 234 567 as 1.23 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
