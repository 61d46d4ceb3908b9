"""`segtrain data prepare`: unpacks the official archives of a data set, and converts what is not read as it
is."""

from __future__ import annotations

import os
from pathlib import Path

from segtrain.data import DATA, PREPARE
from segtrain.data.preparation import Places
from segtrain.errors import ConfigError
from segtrain.text import count, say


def data_prepare(config: dict, stop) -> list[str]:
    """Unpacks and converts the archives of a data set, builds the data set, and prints a line for each step
    and for each split; returns these lines. A dry run prints what would be done."""
    chosen = config["data"]
    if chosen["name"] not in PREPARE:
        raise ConfigError(
            f"data={chosen['name']} has no official archives; choose data= of {', '.join(sorted(PREPARE))}"
        )
    archives = config["archives"] or chosen["root"]
    if config["archives"] and not os.path.isdir(archives):
        raise ConfigError(f"archives is {archives!r}, which is not a folder; give that of the archives")
    places = Places(Path(chosen["root"]), Path(archives), int(config["max_gb"] * 1e9))
    steps = PREPARE[chosen["name"]](chosen, places)
    plans = [step.plan() for step in steps]  # of all steps, before the first one takes its time
    if config["dry_run"]:
        say(*plans)
        return plans

    def interrupt() -> None:
        stop.raise_if_requested("stopped while preparing; the same command resumes")

    lines = []
    for step in steps:
        lines.append(step.run(interrupt))
        say(lines[-1])
    splits = DATA.build(chosen).splits
    lines.append(
        f"{chosen['name']}: " + ", ".join(f"{name} {count(len(splits[name]), 'image')}" for name in splits)
    )
    say(lines[-1])
    return lines
