"""Whole runs of the program, each in a process of its own that a campaign may kill.

A process is either `python -m segtrain …`, or a fork of this process after it has imported everything,
which starts in a tenth of the time and can have a part of segtrain replaced."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SMALL = (
    *("data=shapes", "data.size=48", "data.num_train=6", "data.num_val=2", "device=cpu", "model=unet"),
    *("model.widths=[4,8]", "augmentation=light", "loader.batch_size=4", "loader.workers=0"),
    *("evaluate.workers=0", "trainer.log_every=1"),
)
"""A training of milliseconds a step."""
LIMIT_S = 30
"""Within this every fault ends (promise 6)."""


@dataclass
class Ended:
    """code: as the shell would see it; negative: the number of the signal that killed the process. None: it
    had to be killed after the limit."""

    code: int | None
    out: str
    err: str
    seconds: float

    def wrong(self, *codes: int) -> str | None:
        """What is wrong with an end that should be one of `codes`, with one line of error unless it is 0."""
        if self.code is None:
            return f"did not end within {self.seconds:.0f} s: {self.err[-3000:]}"
        lines = [line for line in self.err.splitlines() if line.startswith("segtrain: error: ")]
        if "Traceback" in self.err + self.out:
            return f"traceback (exit {self.code}): {self.err[-600:]}"
        if self.code not in codes:
            return f"exit {self.code}, not {' or '.join(map(str, codes))}: {self.err[-300:]}"
        if len(lines) != (self.code > 0):
            return f"exit {self.code} with {len(lines)} lines of error: {self.err[-300:]}"
        return None


class Process:
    """A running program; its streams go to files in `folder`, its working directory."""

    def __init__(self, pid: int, log: Path):
        self.pid, self.log, self.began, self._status = pid, log, time.monotonic(), None

    def alive(self) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status is None

    def send(self, number: int) -> None:
        if self.alive():
            os.kill(self.pid, number)

    def wait(self, limit_s: float = 120) -> Ended:
        """The end of the process, which is killed after `limit_s` seconds from now; its stderr then ends with
        what its threads were doing."""
        since = time.monotonic()
        while self.alive() and time.monotonic() - since < limit_s:
            time.sleep(0.002)
        seconds, late = time.monotonic() - since, self.alive()
        if late:
            os.kill(self.pid, signal.SIGABRT)  # faulthandler writes the stacks
            time.sleep(1)
            self.send(signal.SIGKILL)
            while self.alive():
                time.sleep(0.01)
        logs = [self.log.with_suffix(end) for end in (".out", ".err")]
        # A process may be killed before it has made them.
        texts = [log.read_text(errors="replace") if log.exists() else "" for log in logs]
        return Ended(None if late else self._status, *texts, seconds)


_count = 0


def start(words, folder: Path, real: bool = False, change: Callable[[], object] | None = None) -> Process:
    """Starts the program in `folder`. change: called in a forked process before the program, to replace
    parts of it."""
    global _count
    assert not (real and change)
    if not real:
        warm()
    _count += 1
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{_count}.log"
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid == 0:
        _become(words, folder, log, real, change)
    return Process(pid, log)


def _become(words, folder: Path, log: Path, real: bool, change) -> None:
    code = 1
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as segtrain.__main__ does
    try:
        os.setsid()
        os.chdir(folder)
        for number, name in enumerate((os.devnull, log.with_suffix(".out"), log.with_suffix(".err"))):
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
            os.dup2(descriptor, number)
            os.close(descriptor)
        if real:
            os.execve(sys.executable, [sys.executable, "-m", "segtrain", *words], environment())
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # those of a test runner write elsewhere
        for name in ("out", "err"):
            setattr(sys, f"std{name}", open(1 + (name == "err"), "w", closefd=False, encoding="utf-8"))  # noqa: SIM115
            setattr(sys, f"__std{name}__", getattr(sys, f"std{name}"))
        os.environ.update(environment())
        faulthandler.enable(sys.stderr)
        if change is not None:
            change()
        from segtrain.cli.main import main

        code = main(list(words))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def environment() -> dict[str, str]:
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **quiet, "PYTHONFAULTHANDLER": "1"}


def run(words, folder: Path, limit_s: float = 120, **how) -> Ended:
    return start(words, folder, **how).wait(limit_s)


WARM = (
    *("torch", "torch._dynamo", "torch.utils.tensorboard", "hydra", "omegaconf", "segtrain.commands.train"),
    *(
        "segtrain.build",
        "segtrain.cli.main",
        "segtrain.cli.stages",
        "segtrain.cli.printing",
        "segtrain.cli.compose",
    ),
)


def warm() -> None:
    """Imports all that a training imports. One thread, as a forked process has no others."""
    if all(name in sys.modules for name in WARM):
        return
    os.environ.update(environment())
    for name in WARM:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)


def change_step(change: Callable[[Callable], Callable]) -> None:
    """In a forked process: the training takes `change(step)` in place of its step."""
    from segtrain.train import loop

    train, changed = loop.train, change(loop.train_step)
    loop.train = lambda *arguments, **options: train(*arguments, **{"step": changed, **options})


def left_behind(folder: Path, within_s: float = 3.0) -> list[int]:
    """Processes that still work in `folder` after `within_s` seconds: forgotten children of a run that has
    ended."""
    end = time.monotonic() + within_s
    while found := [
        pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _works_in(pid, folder)
    ]:
        if time.monotonic() > end:
            return found
        time.sleep(0.02)
    return []


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(folder)
    except OSError:
        return False


KEPT = ("step", "train/loss", "train/rate", "val/miou")


def losses(run: Path) -> list[dict]:
    """What metrics.jsonl says of losses, rates and scores; times are left out."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in KEPT if key in line} for line in lines]


def difference(one: Path, other: Path, step: int) -> str | None:
    """In what two finished runs differ: bytes of the weights, every tensor and number of the state, the
    loss log; None if they are equal."""
    from segtrain import checkpoint

    folders = [run / "checkpoints" / str(step) for run in (one, other)]
    weights = [folder / "model.safetensors" for folder in folders]
    for path in weights:
        if not path.exists():
            return f"no {path}"
    if weights[0].read_bytes() != weights[1].read_bytes():
        return "other weights"
    place = _unequal(*map(checkpoint.load_state, folders))
    if place is not None:
        return f"other state at {place}"
    return None if losses(one) == losses(other) else "another loss log"


def _unequal(one, other, place: str = "state") -> str | None:
    import torch

    if isinstance(one, torch.Tensor):
        return None if torch.equal(one, other) else place
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return place
        pairs = [(one[key], other[key], f"{place}.{key}") for key in one]
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return place
        pairs = [(a, b, f"{place}[{i}]") for i, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        return None if one == other else place
    return next((found for pair in pairs if (found := _unequal(*pair)) is not None), None)


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
