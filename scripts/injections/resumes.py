"""Runs that are stopped at chosen steps and resumed, against runs that were never stopped."""

from __future__ import annotations

import functools
import itertools
import os
import random
import signal
from pathlib import Path

from injections import programs
from injections.figure import Figure

STEPS, EPOCH = 14, 6
WORDS = (
    *("train", *programs.SMALL, "data.num_train=24", f"trainer.steps={STEPS}", "trainer.evaluate_every=5"),
    *("name=run", "resume=auto"),
)
WORKERS, ACCUMULATE, EMA, AMP = (0, 1, 2), (1, 2), ("null", "0.9"), ("none", "bf16")


def matrix(quick: bool, folder: Path) -> list[Figure]:
    """Instants x workers x gradient accumulation x EMA x bf16: each run is stopped once at a random step,
    twice within one epoch, and three times, with another number of workers after each stop."""
    rng, failures, count, stops = random.Random(0), [], 0, 0
    cells = list(itertools.product(ACCUMULATE, EMA, AMP))
    for accumulate, ema, amp in cells[3:4] if quick else cells:
        words = (*WORDS, f"trainer.accumulate={accumulate}", f"trainer.ema={ema}", f"trainer.amp={amp}")
        what = f"accumulate={accumulate} ema={ema} amp={amp}"
        straight = folder / f"straight-{accumulate}-{ema}-{amp}"
        ended = programs.run(words, straight)
        assert ended.code == 0, ended.err
        for workers in WORKERS[1:2] if quick else WORKERS:
            for cuts in _instants(rng)[2 if quick else 0 :]:
                place = programs.fresh(folder / "stopped")
                wrong = _stopped(words, place, cuts, workers) or programs.difference(
                    place / "outputs" / "run", straight / "outputs" / "run", STEPS
                )
                count, stops = count + 1, stops + len(cuts)
                if wrong:
                    failures.append(f"{what} workers={workers} stopped after {cuts} more steps: {wrong}")
        programs.progress(f"resume matrix: {count} runs stopped {stops} times, {len(failures)} differ")
    return [
        Figure(
            2,
            "SIGTERM at chosen steps: instants x workers x accumulation x EMA x bf16",
            count,
            f"stopped {stops} times and resumed with another number of workers, {len(failures)} of {count} "
            f"differ from the straight run in any bit",
            failures,
        )
    ]


def _instants(rng: random.Random) -> list[list[int]]:
    """Numbers of steps between the stops: one stop, two in the second epoch, three in all."""
    first = rng.randint(EPOCH + 1, 2 * EPOCH - 3)
    return [
        [rng.randint(1, STEPS - 1)],
        [first, rng.randint(1, 2 * EPOCH - 1 - first)],
        [rng.randint(1, 4) for _ in range(3)],
    ]


def _stopped(words, place: Path, cuts: list[int], workers: int) -> str | None:
    """Runs to the end with a stop after each of `cuts` more steps; what went wrong."""
    for number, steps in enumerate(cuts):
        with_workers = (*words, f"loader.workers={(workers + number) % len(WORKERS)}")
        ended = programs.run(with_workers, place, change=functools.partial(_stop_after, steps))
        if wrong := ended.wrong(128 + signal.SIGTERM):
            return wrong
    return programs.run((*words, f"loader.workers={workers}"), place).wrong(0)


def _stop_after(steps: int) -> None:
    """In the process of a run: SIGTERM comes in the middle of its step number `steps`."""
    taken = 0

    def stopping(step):
        def counted(*arguments):
            nonlocal taken
            taken += 1
            if taken == steps:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(*arguments)

        return counted

    programs.change_step(stopping)
