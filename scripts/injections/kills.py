"""kill -9 at random instants of whole runs, which are then resumed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from injections import programs
from injections.figure import Figure

STEPS = 60
WORDS = (
    *("train", *programs.SMALL, "model.widths=[8,16]", f"trainer.steps={STEPS}", "trainer.save_every=1"),
    *("trainer.evaluate_every=20", "trainer.ema=0.9", "name=run", "resume=auto"),
)
NAIVE = "naive.pt"
LEAST_SHARE = 0.25
"""Of the kills, at least this share must fall inside a save."""


@dataclass
class Kills:
    """lost_steps: the most steps whose loss was logged and that the newest checkpoint lacks. unreadable,
    differing, orphans: one line for each failure. finished: runs that were killed at least once and then
    ended."""

    count: int = 0
    real: int = 0
    in_a_save: int = 0
    finished: int = 0
    lost_steps: int = 0
    unreadable: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)


def kill_9(quick: bool, folder: Path) -> list[Figure]:
    """Runs that save after each step, killed at instants drawn evenly over their time, every third one in
    the next save after that, resumed and killed again until they end. One kill in ten is of a process
    started anew, the others of forked ones. A saver that writes over one file must lose under such
    kills."""
    rng, kills = random.Random(0), Kills()
    for real, count in ({False: 5} if quick else {False: 180, True: 20}).items():
        straight = folder / f"straight-{real}"
        ended = programs.run(WORDS, straight, real=real)
        assert ended.code == 0, ended.err
        enough = kills.count + count
        while kills.count < enough:
            place = programs.fresh(folder / f"killed-{kills.count}")
            _chain(kills, place, real, enough, rng, ended.seconds)
            if other := programs.difference(place / "outputs" / "run", straight / "outputs" / "run", STEPS):
                kills.differing.append(f"{place.name}: {other}")
            programs.progress(
                f"kill -9: {kills.count}, inside a save {kills.in_a_save}, unreadable "
                f"{len(kills.unreadable)}, other ends {len(kills.differing)}"
            )
    unreadable, tried = _naive_losses(folder, rng, quick)
    return _figures(kills, unreadable, tried, quick)


def _chain(kills: Kills, place: Path, real: bool, enough: int, rng: random.Random, lasts_s: float) -> None:
    """A run that is killed and resumed until it ends."""
    run, kept, killed = place / "outputs" / "run", 0, 0
    while True:
        process = programs.start((*WORDS, f"loader.workers={rng.choice((0, 0, 1, 2))}"), place, real=real)
        if kills.count < enough:
            _kill_after(process, rng.uniform(0, lasts_s), run if kills.count % 3 == 0 else None, rng)
        ended = process.wait()
        if orphans := programs.left_behind(place):
            kills.orphans.append(f"{place.name}: {len(orphans)} processes")
        if ended.code != -signal.SIGKILL:
            break
        kills.count, kills.real, killed = kills.count + 1, kills.real + real, killed + 1
        kills.in_a_save += _saving(run, process.pid)
        kept = _newest(kills, run, kept)
    if wrong := ended.wrong(0):
        kills.unreadable.append(f"{place.name} after step {kept}: {wrong}")
    elif kept and not any(text in ended.out for text in _goes_on(kept)):
        kills.unreadable.append(f"{place.name}: not resumed from step {kept}")
    kills.finished += killed > 0


def _goes_on(step: int) -> tuple[str, str]:
    """What a run says that was killed after the save of `step`, or behind its end."""
    return f"resuming from outputs/run/checkpoints/{step}\n", "outputs/run is finished"


def _kill_after(
    process: programs.Process, delay_s: float, saves_in: Path | None, rng, within_s=0.004
) -> None:
    """Kills the process after the delay, or `within_s` after the beginning of the next save of the run
    `saves_in`."""
    end = time.monotonic() + delay_s
    while process.alive() and time.monotonic() < end:
        time.sleep(0.0005)
    if saves_in is not None:
        while process.alive() and not _saving(saves_in, process.pid):
            time.sleep(0.0002)
        time.sleep(rng.uniform(0, within_s))
    process.send(signal.SIGKILL)


def _saving(run: Path, pid: int) -> bool:
    """Whether the temporary folder of a save is there, which the save makes first and renames last."""
    with contextlib.suppress(OSError):
        return any(f".{pid}-" in name for name in os.listdir(run / "checkpoints") if name.startswith("."))
    return False


def _newest(kills: Kills, run: Path, before: int) -> int:
    """The step of the newest checkpoint whose hashes match; it may not be older than the one that the run
    itself reported as saved, nor than the one found after the kill before."""
    from segtrain import checkpoint

    reported = checkpoint.read_link(run / "checkpoints" / "last") or 0
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            found = checkpoint.to_resume(run) if run.exists() else None
        if found is not None:
            checkpoint.load_weights(found)
            checkpoint.load_state(found)
        step = 0 if found is None else int(found.name)
    except Exception as error:
        kills.unreadable.append(f"{run}: {error}")
        return before
    if step < max(before, reported):
        kills.unreadable.append(f"{run}: step {step} found, {max(before, reported)} saved before")
    kills.lost_steps = max(kills.lost_steps, _logged(run) - step)
    return step


def _logged(run: Path) -> int:
    """The last step in the loss log, whose last line may be cut off."""
    with contextlib.suppress(OSError):
        for line in reversed((run / "metrics.jsonl").read_text().splitlines()):
            with contextlib.suppress(ValueError):
                return json.loads(line)["step"]
    return 0


def _naive_losses(folder: Path, rng: random.Random, quick: bool) -> tuple[int, int]:
    """(unreadable files, kills) of a saver that writes over one file, killed as segtrain's own is; if quick,
    killed in its saves until the first loss."""
    place, unreadable, tried = folder / "naive", 0, 0
    lasts_s = programs.run((*WORDS, "name=whole"), place, change=_save_naively).seconds
    run = place / "outputs" / "run"
    file = run / "checkpoints" / NAIVE
    while tried < 60 and not (quick and unreadable):
        process = programs.start(WORDS, place, change=_save_naively)
        in_a_save = run if quick or tried % 3 == 0 else None
        _kill_after(process, rng.uniform(0, lasts_s), in_a_save, rng, within_s=0.001)
        if process.wait().code == -signal.SIGKILL:
            tried += 1
            unreadable += file.exists() and not _loads(file)
    return unreadable, tried


def _save_naively() -> None:
    import torch

    from segtrain import checkpoint

    def save(run, step, weights, state, description):
        folder = run / "checkpoints"
        folder.mkdir(exist_ok=True)
        sign = folder / f".{NAIVE}.{os.getpid()}-saving"
        sign.touch()
        torch.save((weights, state), folder / NAIVE)
        sign.unlink()

    checkpoint.save = save
    checkpoint.link = checkpoint.prune = lambda *_: None


def _loads(file: Path) -> bool:
    import torch

    try:
        torch.load(file, weights_only=True)
    except Exception:
        return False
    return True


def _figures(kills: Kills, unreadable: int, tried: int, quick: bool) -> list[Figure]:
    void = [] if unreadable else [f"a naive saver lost nothing in {tried} kills, so that these prove nothing"]
    if kills.in_a_save < LEAST_SHARE * kills.count and not quick:
        void.append(f"only {kills.in_a_save} of {kills.count} kills fell inside a save")
    return [
        Figure(
            1,
            f"kill -9 at random instants, {kills.in_a_save} of them inside a save",
            kills.count,
            f"{len(kills.unreadable)} without a readable checkpoint as new as the last save, at most "
            f"{kills.lost_steps} step lost; a saver that writes over one file: {unreadable} of {tried} "
            f"unreadable",
            kills.unreadable + void,
        ),
        Figure(
            2,
            "kill -9, resumed until the run ends",
            kills.finished,
            f"{len(kills.differing)} of {kills.finished} runs differ from the straight one in weights, "
            f"optimizer, EMA, random states or loss log",
            kills.differing,
        ),
        Figure(
            7,
            "kill -9 of a run, some with workers",
            kills.count,
            f"{len(kills.orphans)} left a process behind",
            kills.orphans,
        ),
    ]
