"""Several processes of one run: two runs that want one folder, and loader workers that die or freeze."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

from injections import programs
from injections.figure import Figure

STEPS = 60
WORDS = (
    *(
        "train",
        *programs.SMALL,
        f"trainer.steps={STEPS}",
        "trainer.save_every=20",
        "trainer.evaluate_every=60",
    ),
    *("name=run", "resume=auto"),
)


def one_folder(quick: bool, folder: Path) -> list[Figure]:
    """Three runs started in one folder within a tenth of a second; the one that got it is killed with
    SIGKILL, and the next one takes over its lock and ends as the straight run."""
    rng, failures = random.Random(0), []
    straight = _straight(folder)
    rounds = 1 if quick else 15
    slowest = 0.0
    for number in range(rounds):
        place = programs.fresh(folder / "shared")
        wrong, seconds = _shared(place, rng, real=number == 0 and not quick)
        slowest = max(slowest, seconds)
        if wrong := wrong or programs.difference(place / "outputs" / "run", straight, STEPS):
            failures.append(f"round {number}: {wrong}")
    programs.progress(f"one folder: {rounds}, {len(failures)} wrong")
    text = (
        f"one runs, the others exit 2 within {slowest:.1f} s of the start and name it; the lock of the "
        f"killed one is taken over; {len(failures)} rounds otherwise"
    )
    return [Figure(1, "three runs in one folder", rounds, text, failures)]


def _straight(folder: Path) -> Path:
    ended = programs.run(WORDS, folder / "straight")
    assert ended.code == 0, ended.err
    return folder / "straight" / "outputs" / "run"


def _shared(place: Path, rng: random.Random, real: bool) -> tuple[str | None, float]:
    """What went wrong, and the longest time until a run was refused."""
    began, processes = time.monotonic(), []
    for _ in range(3):
        processes.append(programs.start(WORDS, place, real=real))
        time.sleep(rng.uniform(0, 0.05))
    while sum(process.alive() for process in processes) > 1 and time.monotonic() - began < programs.LIMIT_S:
        time.sleep(0.01)
    seconds = time.monotonic() - began
    holders = [process for process in processes if process.alive()]
    for process in holders:
        process.send(signal.SIGKILL)
        process.wait()
    if len(holders) != 1:
        return f"{len(holders)} runs in the folder", seconds
    for process in processes:
        if process is not holders[0]:
            ended = process.wait()
            if wrong := ended.wrong(2):
                return wrong, seconds
            if (
                f"is in use by process {holders[0].pid} " not in ended.err
                and "already exists" not in ended.err
            ):
                return f"the owner is not named: {ended.err[-200:]}", seconds
    ended = programs.run(WORDS, place)
    if f"took over the lock of process {holders[0].pid}" not in ended.err:
        return f"the lock was not taken over: {ended.err[-200:]}", seconds
    return ended.wrong(0), seconds


TRIES = 5
"""Runs that may end before a worker of theirs is found."""


def lost_workers(quick: bool, folder: Path) -> list[Figure]:
    """A loader worker is killed or frozen at a random instant; the run is then resumed."""
    rng, failures, slowest, found = random.Random(0), [], 0.0, 0
    straight = _straight(folder)
    numbers = [signal.SIGKILL] * (1 if quick else 24) + [signal.SIGSTOP] * (0 if quick else 3)
    for number in numbers:
        for _ in range(TRIES):
            place = programs.fresh(folder / "workers")
            process = programs.start((*WORDS, "loader.workers=2"), place)
            hit = _hit_worker(process, number, rng)
            ended = process.wait(programs.LIMIT_S)
            if hit or ended.wrong(0):  # else the run was over before a worker was seen
                break
        slowest, found = max(slowest, ended.seconds), found + (ended.code == 6)
        wrong = ended.wrong(0, 6) if hit else "no worker came up"
        if orphans := programs.left_behind(place):
            wrong = f"{len(orphans)} processes are left"
        wrong = wrong or programs.run(WORDS, place).wrong(0)
        if wrong := wrong or programs.difference(place / "outputs" / "run", straight, STEPS):
            failures.append(f"{number.name}: {wrong}")
    programs.progress(f"lost workers: {len(numbers)}, {found} noticed, {len(failures)} wrong")
    text = (
        f"{found} runs end with exit 6 in one line, the others had all their batches; at most "
        f"{slowest:.1f} s (a frozen worker is waited for 20 s); {len(failures)} of {len(numbers)} hang, "
        f"leave a process behind, or differ from the straight run after the resume"
    )
    return [Figure(6, "loader workers killed or frozen", len(numbers), text, failures)]


def _hit_worker(process: programs.Process, number: signal.Signals, rng: random.Random) -> bool:
    """Sends the signal to a worker within a second of the start of the workers; whether there was one."""
    from segtrain.run.stop import children_of

    while process.alive() and len(children_of(process.pid)) < 2:
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 1))
    workers = children_of(process.pid)
    if workers:
        with contextlib.suppress(OSError):
            os.kill(rng.choice(workers), number)
    return bool(workers)
