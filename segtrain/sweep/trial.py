"""A trial: one training of a sweep."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from segtrain.run.layout import METRICS
from segtrain.run.own import parsed, read_own
from segtrain.run.record import read_record

MAX_METRICS = 256 << 20


class Point(NamedTuple):
    """A validation: the optimizer step, the score, and the bounds of its 95 % interval."""

    step: int
    value: float
    low: float | None = None
    high: float | None = None


class Score(NamedTuple):
    """name: of the score that picks the best checkpoint, as in metrics.jsonl ("val/miou")."""

    name: str
    lower_is_better: bool

    def best(self, points: list[Point]) -> Point | None:
        """The best validation, the first one of equals; None if there is none."""
        sign = -1 if self.lower_is_better else 1
        return max(points, key=lambda point: sign * point.value, default=None)


@dataclass
class Trial:
    """One training of a sweep.

    number: from 1, in the order in which trials were chosen. swept: {key: value} of the swept keys, in
    Hydra's syntax. words: all overrides. config: checked; None if they do not compose. best: its best
    validation. steps: optimizer steps that it was trained. seconds: of training, those of earlier calls
    too.
    """

    number: int
    swept: dict[str, str]
    words: list[str] = field(default_factory=list)
    config: dict | None = None
    folder: Path = Path()
    status: str = "waiting"  # running, finished, pruned, failed, stopped
    error: str = ""
    best: Point | None = None
    steps: int | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.swept.items()) or "no swept key"

    def read_results(self, score: Score) -> None:
        """Sets what the run folder tells of the training: best validation, steps and seconds."""
        record = read_record(self.folder)
        scores = record.get("scores") or {}
        steps, value = scores.get("step"), scores.get(score.name)
        self.best = score.best(curve(self.folder, score.name))
        if self.best is None and isinstance(value, (int, float)) and isinstance(steps, int):
            self.best = Point(steps, float(value))
        self.steps = steps if isinstance(steps, int) else self.best and self.best.step
        calls = [record, *(one for one in record.get("earlier", []) if isinstance(one, dict))]
        self.seconds = sum(one["seconds"] for one in calls if isinstance(one.get("seconds"), (int, float)))

    def plain(self) -> dict:
        """The trial as plain data, for sweep.json."""
        return {
            "number": self.number,
            "parameters": self.swept,
            "words": self.words,
            "folder": str(self.folder),
            "status": self.status,
            "error": self.error,
            "best": None if self.best is None else self.best._asdict(),
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
        }

    @staticmethod
    def from_plain(plain: Mapping) -> Trial:
        """The inverse of `plain`. LookupError, TypeError or ValueError for data that is none."""
        best = plain["best"]
        if best is not None:
            numbers = [one for one in Point(**best) if one is not None]
            if not all(isinstance(one, (int, float)) for one in numbers) or best["value"] != best["value"]:
                raise ValueError(f"a validation is {best}")
        return Trial(
            number=int(plain["number"]),
            swept={str(key): str(value) for key, value in plain["parameters"].items()},
            words=[str(word) for word in plain["words"]],
            folder=Path(plain["folder"]),
            status=str(plain["status"]),
            error=str(plain["error"]),
            best=None if best is None else Point(**best),
            steps=plain["steps"],
            seconds=float(plain["seconds"]),
        )


def curve(folder: Path, score: str) -> list[Point]:
    """The validations in a run's metrics.jsonl, in order; [] if there is none. Lines that cannot be read are
    left out: the last one may be half written."""
    try:
        lines = read_own(folder / METRICS, MAX_METRICS).splitlines()
    except OSError:
        return []
    points = []
    for line in lines:
        try:
            numbers = parsed(line)
            value, step = float(numbers[score]), int(numbers["step"])
        except (ValueError, TypeError, LookupError):
            continue
        if value == value:
            points.append(Point(step, value, numbers.get(f"{score}/low"), numbers.get(f"{score}/high")))
    return points


class Curve:
    """The validations of a running trial, read again when the file has changed."""

    def __init__(self, folder: Path, score: str):
        self._folder, self._score = folder, score
        self._seen: tuple | None = None
        self._points: list[Point] = []

    def news(self) -> list[Point] | None:
        """All validations so far, or None if there is none since the last call."""
        try:
            found = (self._folder / METRICS).stat()
        except OSError:
            return None
        seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        if seen == self._seen:
            return None
        before, self._seen, self._points = self._points, seen, curve(self._folder, self._score)
        return self._points if self._points != before else None


def folder_name(swept: Mapping[str, str]) -> str:
    """A short folder name made of safe characters of the swept values, with a hash if characters were
    lost."""
    whole = "_".join(f"{key}-{value}" for key, value in swept.items()) or "only"
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", whole).strip("-._")
    if name == whole and len(name) <= 60:
        return name
    text = "\n".join(f"{key}={value}" for key, value in swept.items())
    return f"{name[:50].rstrip('-._') or 'run'}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
