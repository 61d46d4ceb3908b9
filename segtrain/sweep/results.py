"""What is known of a sweep: sweep.json for programs, sweep.csv for people, and the ranking of its trials."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segtrain.errors import ConfigError
from segtrain.run.own import parsed, read_own
from segtrain.run.storage import write_atomic
from segtrain.sweep.trial import Score, Trial
from segtrain.text import number, table

TABLE, STATE = "sweep.csv", "sweep.json"
MAX_STATE = 64 << 20
FIXED_SETTINGS = ("name", "over", "sampler", "seed", "startup", "prune")
"""Settings that decide which trials are proposed, and so stay as they are when a sweep is repeated."""


@dataclass
class Results:
    """A sweep: its score, its trials in the order in which they were chosen, the settings of its section
    `sweep`, the command line that started it, and the flags of that line that its trials need too."""

    score: Score
    trials: list[Trial] = field(default_factory=list)
    settings: Mapping = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)

    def ranked(self) -> list[Trial]:
        """The finished trials, best first; then the pruned ones, then all others."""

        def order(trial: Trial):
            value = None if trial.best is None else trial.best.value
            return (
                {"finished": 0, "pruned": 1}.get(trial.status, 2),
                value is None,
                (value if self.score.lower_is_better else -value) if value is not None else 0,
            )

        return sorted(self.trials, key=order)

    def finished(self) -> list[Trial]:
        """The finished trials that have a score, best first."""
        return [trial for trial in self.ranked() if trial.status == "finished" and trial.best is not None]

    def rows(self) -> list[dict]:
        """A row for each trial, best first; only finished trials have a rank."""
        return [self._row(rank, trial) for rank, trial in enumerate(self.ranked(), 1)]

    def _row(self, rank: int, trial: Trial) -> dict:
        best = trial.best
        return {
            "rank": rank if trial.status == "finished" else "",
            **trial.swept,
            self.score.name: "" if best is None else best.value,
            "low": "" if best is None or best.low is None else best.low,
            "high": "" if best is None or best.high is None else best.high,
            "steps": "" if trial.steps is None else trial.steps,
            "seconds": round(trial.seconds, 1),
            "folder": str(trial.folder),
            "status": trial.status,
            "error": trial.error,
        }

    def write(self, folder: Path) -> None:
        """Writes sweep.csv and sweep.json into the folder of the sweep."""
        rows, text = self.rows(), io.StringIO()
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(folder / TABLE, text.getvalue().encode("utf-8", "backslashreplace"))
        state = {
            "score": self.score.name,
            "lower_is_better": self.score.lower_is_better,
            "settings": dict(self.settings),
            "command": self.command,
            "flags": self.flags,
            "trials": [trial.plain() for trial in self.trials],
        }
        write_atomic(folder / STATE, json.dumps(state, indent=1).encode("utf-8", "backslashreplace"))

    def as_text(self, max_rows: int | None = None) -> list[str]:
        """The table for the terminal, of at most `max_rows` rows."""
        rows = self.rows()
        shown = rows[:max_rows] if max_rows else rows
        interval = ["95 % interval"] if any(row["low"] != "" for row in rows) else []  # none for one group
        names = ["rank", *self._swept(), self.score.name, *interval, "steps", "seconds", "status"]
        cells = [[self._cell(row, name) for name in names] for row in shown]
        left = [f"and {len(rows) - len(shown)} more"] if len(shown) < len(rows) else []
        failed = [trial for trial in self.trials if trial.status == "failed"]
        errors = [f"trial {trial.number} failed: {trial.error}" for trial in failed]
        return [*table(names, cells, left=range(len(names))), *left, *errors]

    def _swept(self) -> list[str]:
        return list(dict.fromkeys(key for trial in self.trials for key in trial.swept))

    def _cell(self, row: Mapping, name: str) -> str:
        if name == "95 % interval":
            return f"{number(row['low'])} to {number(row['high'])}" if row["low"] != "" else ""
        value = row.get(name, "")
        return number(value) if isinstance(value, float) and name == self.score.name else str(value)


def read_results(folder: Path) -> Results | None:
    """The sweep in a folder; None if the folder holds none. ConfigError for a file that is none of ours."""
    path = folder / STATE
    try:
        state = parsed(read_own(path, MAX_STATE))
        settings = dict(state["settings"])
        dict(settings.get("over") or {})  # fails for what is no mapping
        return Results(
            Score(str(state["score"]), bool(state["lower_is_better"])),
            [Trial.from_plain(trial) for trial in state["trials"]],
            settings,
            [str(word) for word in state["command"]],
            [str(word) for word in state["flags"]],
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not the state of a sweep; move it away, and repeat the sweep's command to have it "
            f"written anew"
        ) from error
