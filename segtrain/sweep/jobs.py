"""Trials as processes of their own: `python -m segtrain train …` on this machine or as jobs of Slurm."""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from segtrain.errors import ConfigError
from segtrain.run.lock import holder
from segtrain.run.own import read_own
from segtrain.run.storage import write_atomic
from segtrain.settings import Launcher
from segtrain.sweep.trial import Trial

SUBMITTED_AT_ONCE = 8
LOG_END = 64 << 10
LAST_S = 30.0
"""How long a process may take to save and end."""
ERROR = "segtrain: error: "


class LaunchError(ConfigError):
    """No trial can be started in this way; the sweep ends."""


class Job(Protocol):
    """A started trial."""

    def has_ended(self) -> bool:
        """Whether its process or its job of Slurm has ended."""

    def stop(self) -> None:
        """Asks it to save and end."""

    def failure(self) -> str:
        """Why it failed, in one line."""


class Jobs(Protocol):
    """A way to start trials. at_once: how many run at a time. limited: whether they may be stopped by others
    than the sweep, at a time limit or by preemption, and are to be resumed."""

    at_once: int
    limited: bool

    def started(self, trial: Trial, flags: list[str]) -> contextlib.AbstractContextManager[Job]:
        """Starts a trial in its folder. flags: of the command line, such as --config-dir. LaunchError if it
        cannot be started."""


def jobs_of(settings: Launcher, folder: Path) -> Jobs | None:
    """The jobs of `launcher=NAME`; None for launcher=null. folder: of the sweep. ConfigError if its package
    is not installed."""
    if settings.name is None:
        return None
    if settings.name == "joblib":
        return LocalJobs(settings)
    return SlurmJobs(settings, folder)


def stop_holder(folder: Path) -> bool:
    """Sends SIGTERM to the process that holds the lock of a run folder; False if it is none of this
    machine."""
    owner = holder(folder)
    if not owner or owner["host"] != socket.gethostname():
        return False
    with contextlib.suppress(OSError):
        os.kill(owner["pid"], signal.SIGTERM)
    return True


def _package(name: str, launcher: str, extra: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"launcher={launcher} needs the package {name}, which is not installed; run: pip install "
            f"'segtrain[{extra}]'"
        ) from error


def _words(trial: Trial, flags: list[str]) -> list[str]:
    # The sweep goes back into the queue as a whole; a trial that it prunes must not.
    single = ["sweep=null", "launcher=null", "trainer.requeue=null"]
    words = [*trial.words, *(word for word in single if word not in trial.words)]
    place = [f"hydra.run.dir={trial.folder}", "resume=auto"]
    return [sys.executable, "-m", "segtrain", "train", *flags, *words, *place]


def log_of(trial: Trial) -> Path:
    """The file with what a trial's process prints."""
    return trial.folder.with_name(f"{trial.folder.name}.log")


class LocalJobs:
    """Processes on this machine, each with a GPU of its own, or without GPUs a share of the CPU cores."""

    limited = False

    def __init__(self, settings: Launcher):
        _package("joblib", "joblib", "joblib")
        self._places = Places(settings.jobs, visible_gpus())
        self.at_once = self._places.num

    @contextlib.contextmanager
    def started(self, trial: Trial, flags: list[str]) -> Iterator[Job]:
        with self._places.taken() as place, open(log_of(trial), "ab") as log:
            job = LocalJob(_words(trial, flags), log, environment(place), trial)
            try:
                yield job
            finally:
                job.end()  # before its GPU goes to another trial


class Places:
    """The parts of this machine that processes get. num: how many, by default one for each GPU."""

    def __init__(self, num: int | None, gpus: list[str]):
        self.num = num or max(1, len(gpus))
        self._free: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for place in range(self.num):
            self._free.put(place_of(gpus, place, self.num))

    @contextlib.contextmanager
    def taken(self) -> Iterator[dict[str, str]]:
        """The environment variables of a place that no other process has meanwhile."""
        place = self._free.get()
        try:
            yield place
        finally:
            self._free.put(place)


def visible_gpus() -> list[str]:
    """CUDA_VISIBLE_DEVICES of a process for each GPU; [] without any."""
    torch = importlib.import_module("torch")
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [one.strip() for one in chosen.split(",") if one.strip() not in ("", "-1")]
    return [str(number) for number in range(torch.cuda.device_count())]


def place_of(gpus: list[str], place: int, at_once: int) -> dict[str, str]:
    """Variables of the process in a place, 0 to at_once - 1: its GPU, or its share of the CPU cores."""
    if gpus:
        return {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]}
    return {"OMP_NUM_THREADS": str(max(1, num_cores() // at_once))}


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(place: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process: the user's OMP_NUM_THREADS counts, but each has its own GPU."""
    gpu = {key: value for key, value in place.items() if key == "CUDA_VISIBLE_DEVICES"}
    return {**place, **os.environ, **gpu}


class LocalJob:
    """A trial as a child process."""

    def __init__(self, words: list[str], log, variables: dict[str, str], trial: Trial):
        self._trial = trial
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables
            )
        except OSError as error:
            raise LaunchError(f"no process for a trial: {error.strerror}; use fewer launcher.jobs") from error

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Stops the process, if it has not ended, and waits for it."""
        if not self.has_ended():
            self.stop()
            try:
                self._process.wait(LAST_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def failure(self) -> str:
        return last_error(log_of(self._trial)) or how_ended(self._process.returncode)


def how_ended(code: int) -> str:
    """An exit code of a process in words."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with exit code {code}"


def last_error(log: Path) -> str:
    """The last error line at the end of a log; "" if there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_END))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    errors = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    return errors[-1] if errors else ""


class SlurmJobs:
    """Jobs of Slurm through submitit, or where there is no Slurm local processes."""

    limited = True

    def __init__(self, settings: Launcher, folder: Path):
        self._submitit = _package("submitit", "submitit", "slurm")
        _package("joblib", "submitit", "slurm")
        cluster = None if settings.cluster == "auto" else settings.cluster
        self._logs = folder.resolve() / "submitit"
        try:
            self._executor = self._submitit.AutoExecutor(self._logs, cluster=cluster)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"launcher.cluster={settings.cluster}: {error}") from error
        self._places = None  # Slurm gives each job its GPU and its cores; submitit gives all the first GPU
        if self._executor.cluster == "local":
            self._places = Places(settings.jobs, visible_gpus() if settings.gpus else [])
        self.at_once = self._places.num if self._places else settings.jobs or SUBMITTED_AT_ONCE
        slurm = {"slurm_partition": settings.partition, "slurm_account": settings.account}
        self._executor.update_parameters(
            name=folder.name,
            timeout_min=settings.minutes,
            gpus_per_node=settings.gpus,
            cpus_per_task=settings.cpus,
            **{key: value for key, value in slurm.items() if value is not None},
            **({} if settings.memory_gb is None else {"mem_gb": settings.memory_gb}),
        )

    @contextlib.contextmanager
    def started(self, trial: Trial, flags: list[str]) -> Iterator[Job]:
        submitted = self._logs / f"{trial.folder.name}.job"
        with contextlib.ExitStack() as stack:
            job = self._of_earlier_call(submitted)
            if job is None:
                place = stack.enter_context(self._places.taken()) if self._places else {}
                job = self._submit(Command(_words(trial, flags), place))
                write_atomic(submitted, str(job.job_id).encode())
            yield SlurmJob(job, trial)

    def _submit(self, command: Command):
        try:
            return self._executor.submit(command)
        except self._submitit.core.utils.FailedJobError as error:
            said = (str(error).strip().splitlines() or ["sbatch failed"])[-1]
            raise LaunchError(
                f"launcher=submitit: Slurm refused a job: {said}; check launcher.partition, .account, .gpus, "
                f".cpus, .minutes and .memory_gb"
            ) from error

    def _of_earlier_call(self, submitted: Path):
        """The job that an earlier call submitted for a trial, if it still waits in the queue or runs."""
        try:
            number = read_own(submitted, 100).decode("ascii")
        except (OSError, ValueError):
            return None
        job = self._executor.job_class(self._logs, number) if re.fullmatch("[0-9_]+", number) else None
        return None if job is None or job.done() else job


class Command:
    """What a job of submitit runs: the process of a trial. place: environment variables of its own."""

    def __init__(self, words: list[str], place: Mapping[str, str]):
        self.words, self.place = words, dict(place)

    def __call__(self) -> None:
        # Not submitit's CommandFunction, which kills the process at the time limit and keeps its output back.
        with subprocess.Popen(self.words, stdin=subprocess.DEVNULL, env=environment(self.place)) as process:
            try:
                code = process.wait()
            except BaseException:  # raised by submitit's handler of the signal before the time limit
                process.send_signal(signal.SIGTERM)
                raise  # once the process has saved and ended, for which Popen waits
        if code:
            raise RuntimeError(how_ended(code))


class SlurmJob:
    """A trial as a job of Slurm. Results are read from the run folder: those of submitit are pickles, which
    would run what a file holds."""

    def __init__(self, job, trial: Trial):
        self._job, self._trial = job, trial

    def has_ended(self) -> bool:
        return self._job.done()

    def stop(self) -> None:
        """Slurm sends SIGTERM to the processes of the job; local jobs of submitit keep signals from them."""
        if not stop_holder(self._trial.folder):
            self._job.cancel(check=False)

    def failure(self) -> str:
        return last_error(self._job.paths.stderr) or f"job {self._job.job_id}: {self._job.state}"
