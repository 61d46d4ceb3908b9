"""Storage that refuses in the middle of a whole run: an error at any call of a save, and a disk that fills
up."""

from __future__ import annotations

import builtins
import contextlib
import errno
import functools
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from injections import programs
from injections.figure import Figure, LeftOut

STEPS = 8
WORDS = (
    "train",
    *programs.SMALL,
    f"trainer.steps={STEPS}",
    "trainer.save_every=2",
    "trainer.evaluate_every=4",
)
NAMED = (*WORDS, "name=run", "resume=auto")
WRITES = 12
AT_SAVE = 2
"""The save whose calls fail; there is a checkpoint before it."""
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
CALLS = ("fsync", "rename", "replace", "mkdir", "symlink", "open", "unlink", "rmdir")


def failing_calls(quick: bool, folder: Path) -> list[Figure]:
    """An I/O error, a full disk or a used-up quota at each call by which the second save of a run writes,
    syncs, renames, links or removes; the run is then resumed."""
    straight = _straight(folder, NAMED)
    counted = folder / "counted"
    programs.run(NAMED, counted, change=functools.partial(_fail_at, 0, 0, counted / "calls"))
    names, failures, refused = (counted / "calls").read_text().split(), [], 0
    chosen = _calls_to_fail(names)
    chosen = chosen[:: len(chosen) // 3] if quick else chosen
    for number in chosen:
        place, error = programs.fresh(folder / "failing"), ERRORS[number % len(ERRORS)]
        ended = programs.run(NAMED, place, change=functools.partial(_fail_at, number, error, place / "calls"))
        refused += ended.code == 4
        wrong = ended.wrong(0, 4) or _resumes(place, straight, NAMED, "outputs/run")
        if wrong:
            failures.append(f"{errno.errorcode[error]} at call {number}, {names[number - 1]}: {wrong}")
    programs.progress(f"failing calls: {len(chosen)} of {len(names)}, {len(failures)} wrong")
    return [
        Figure(
            1,
            f"I/O error, full disk or quota at each call of a save (of writes, every {WRITES}th)",
            len(chosen),
            f"{refused} end with exit 4 in one line, the others (removals of old files) go on; "
            f"{len(failures)} lost the checkpoint before or differ from the straight run after the resume",
            failures,
        )
    ]


def _calls_to_fail(names: list[str]) -> list[int]:
    """Numbers, from 1, of the calls that are no writes, and of every WRITES-th write."""
    writes = [number for number, name in enumerate(names, 1) if name == "write"]
    others = [number for number, name in enumerate(names, 1) if name != "write"]
    return sorted([*others, *writes[::WRITES], *writes[-1:]])


def full_disk(quick: bool, folder: Path) -> list[Figure]:
    """Runs on small disks of random sizes, which fill up at any file of the run; each is resumed once the
    disk has grown."""
    rng, failures, refused = random.Random(0), [], 0
    straight = _straight(folder, NAMED)
    whole = sum(
        file.stat().st_size for file in straight.rglob("*") if file.is_file() and not file.is_symlink()
    )
    count = 2 if quick else 40
    for number in range(count):
        kilobytes = rng.randint(8, 2 * whole // 1000)
        with _small_disk(folder / f"disk-{number}", kilobytes) as disk:
            words = (*WORDS, f"hydra.run.dir={disk / 'run'}", "resume=auto")
            place = folder / f"place-{number}"
            ended = programs.run(words, place)
            refused += ended.code == 4
            wrong = ended.wrong(0, 4)
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            wrong = wrong or _resumes(place, straight, words, disk / "run")
        if wrong:
            failures.append(f"disk of {kilobytes} kB: {wrong}")
    programs.progress(f"small disks: {count}, {refused} full, {len(failures)} wrong")
    return [
        Figure(
            1,
            "runs on small disks",
            count,
            f"{refused} fill up: exit 4 in one line, the checkpoint before stays; with more room "
            f"{len(failures)} of {count} differ from the straight run",
            failures,
        )
    ]


def _straight(folder: Path, words) -> Path:
    ended = programs.run(words, folder / "straight")
    assert ended.code == 0, ended.err
    return folder / "straight" / "outputs" / "run"


def _resumes(place: Path, straight: Path, words, run: str | Path) -> str | None:
    """None if the newest checkpoint is the one that the run reported, and the same command goes on from it
    to the end of the straight run."""
    from segtrain import checkpoint

    reported, kept = checkpoint.read_link(place / run / "checkpoints" / "last") or 0, 0
    if (place / run).exists() and (found := checkpoint.to_resume(place / run)):
        kept = int(found.name)
    if kept < reported:
        return f"step {reported} was saved, step {kept} is there"
    ended = programs.run(words, place)
    return ended.wrong(0) or programs.difference(place / run, straight, STEPS)


def _fail_at(number: int, error: int, log: Path) -> None:
    """In the process of a run: call `number` of its save AT_SAVE fails with `error`; 0: none. The names of
    the calls are written into the file `log` after the save."""
    from segtrain.checkpoint import saving
    from segtrain.commands.run import RunOutput

    saves, counting, calls = 0, False, []

    def failing(name: str, real: Callable) -> Callable:
        def call(*arguments, **options):
            if counting:
                calls.append(name)
                if len(calls) == number:
                    raise OSError(error, os.strerror(error))
            return real(*arguments, **options)

        return call

    def write(hashed, data):
        # The file notes the error, as torch.save wraps it into one of its own.
        try:
            return written(hashed, data)
        except OSError as refused:
            hashed.error = refused
            raise

    def save(self, state, scores):
        nonlocal saves, counting
        saves, counting = saves + 1, saves + 1 == AT_SAVE
        try:
            saved(self, state, scores)
        finally:
            if counting:
                counting = False
                log.write_text("\n".join(calls))

    saved, written = RunOutput.save, failing("write", saving._Hashed.write)
    RunOutput.save, saving._Hashed.write = save, write
    saving.open = failing("open", builtins.open)
    for name in CALLS:
        setattr(os, name, failing(name, getattr(os, name)))


@contextlib.contextmanager
def _small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        made = False
    if not made:
        raise LeftOut("this user may not mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
