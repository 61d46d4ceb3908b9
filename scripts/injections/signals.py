"""Signals at random instants of whole runs, from the start of Python to the last save."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from injections import programs
from injections.figure import Figure

STEPS = 150
WORDS = (
    *("train", *programs.SMALL, f"trainer.steps={STEPS}", "trainer.evaluate_every=50", "trainer.ema=0.9"),
    *("name=run", "resume=auto"),
)
POLITE_S = 10
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


@dataclass
class Signals:
    """slowest_s: the longest time from a signal to the end of its run. early: signals before a step was
    taken; in_python: before Python had imported the program; behind: SIGINT after the run had finished, while
    Python unloads. failures, differing: one line for each."""

    count: int = 0
    early: int = 0
    in_python: int = 0
    behind: int = 0
    slowest_s: float = 0.0
    finished: int = 0
    failures: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


def random_instants(quick: bool, folder: Path) -> list[Figure]:
    """SIGTERM and SIGINT at instants drawn evenly over the time of a run, before, while and after torch is
    imported, then the run is resumed and stopped again until it ends. Three signals in ten go to
    processes started anew, the others to forked ones."""
    rng, signals = random.Random(0), Signals()
    for real, count in ({False: 4} if quick else {True: 30, False: 70}).items():
        straight = folder / f"straight-{real}"
        whole = programs.run(WORDS, straight, real=real)
        assert whole.code == 0, whole.err
        enough = signals.count + count
        while signals.count < enough:
            place = programs.fresh(folder / f"stopped-{signals.count}")
            _chain(signals, place, real, enough, rng, whole.seconds)
            run = place / "outputs" / "run"
            if other := programs.difference(run, straight / "outputs" / "run", STEPS):
                signals.differing.append(f"{place.name}: {other}")
            programs.progress(
                f"signals: {signals.count}, {signals.early} before the first step, "
                f"{len(signals.failures)} impolite, {len(signals.differing)} other ends"
            )
    return _figures(signals)


def _chain(
    signals: Signals, place: Path, real: bool, enough: int, rng: random.Random, lasts_s: float
) -> None:
    """A run that is stopped and resumed until it ends."""
    while True:
        words = (*WORDS, f"loader.workers={rng.choice((0, 0, 2))}")
        process, number = programs.start(words, place, real=real), rng.choice(list(CODES))
        sent = signals.count < enough
        if sent:
            time.sleep(rng.uniform(0, lasts_s))
            sent = process.alive()
            process.send(number)
        ended = process.wait(programs.LIMIT_S)
        if ended.code == 0 or not sent:
            if wrong := ended.wrong(0):
                signals.failures.append(f"{place.name}, resumed: {wrong}")
            signals.finished += 1
            return
        signals.count += 1
        signals.slowest_s = max(signals.slowest_s, ended.seconds)
        if wrong := _impolite(signals, ended, number, place):
            signals.failures.append(f"{place.name}, {number.name}: {wrong}")
        if ended.code is None:
            return


def _impolite(signals: Signals, ended: programs.Ended, number: signal.Signals, place: Path) -> str | None:
    """What is wrong with how a run ended after a signal."""
    from segtrain import checkpoint

    if orphans := programs.left_behind(place):
        return f"{len(orphans)} processes are left"
    if ended.seconds > POLITE_S:
        return f"took {ended.seconds:.1f} s"
    run = place / "outputs" / "run"
    if ended.code != CODES[number] and "segtrain" not in ended.err and not ended.out:
        # Python itself was starting: the system or Python's own handler ends it.
        signals.in_python += 1
        return None
    if ended.code == -signal.SIGINT and "\noutputs/run: step" in "\n" + ended.out:
        # The run was finished and Python ending, where only Ctrl-C still ends it; a shell calls this 130 too.
        signals.behind += 1
        return None
    if wrong := ended.wrong(CODES[number]):
        return wrong
    logged = programs.losses(run)[-1]["step"] if (run / "metrics.jsonl").exists() else 0
    signals.early += logged == 0
    saved = checkpoint.read_link(run / "checkpoints" / "last") or 0
    if saved < logged:
        return f"step {logged} was taken and step {saved} is saved: {ended.err[-200:]}"
    return None


def _figures(signals: Signals) -> list[Figure]:
    return [
        Figure(
            7,
            f"SIGTERM, SIGINT at random instants, {signals.early + signals.in_python} before the first step, "
            f"{signals.behind} while Python unloads",
            signals.count,
            f"exit 143 and 130, every step taken is saved, nothing left running; {len(signals.failures)} of "
            f"{signals.count} otherwise; at most {signals.slowest_s:.1f} s",
            signals.failures,
        ),
        Figure(
            2,
            "signals at random instants, resumed until the run ends",
            signals.finished,
            f"{len(signals.differing)} of {signals.finished} runs differ from the straight one in any bit",
            signals.differing,
        ),
    ]
