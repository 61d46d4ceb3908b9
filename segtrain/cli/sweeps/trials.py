"""Runs the trials of a sweep: one after another in this process, or several at a time as processes."""

from __future__ import annotations

import contextlib
import importlib
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from segtrain.cli import launch
from segtrain.cli.resumed import scores_if_finished
from segtrain.errors import Interrupted, SegtrainError
from segtrain.run.folder import create
from segtrain.run.lock import holder
from segtrain.run.record import read_record
from segtrain.run.stop import SIGNALS, Stop
from segtrain.sweep.jobs import Job, Jobs, LaunchError, stop_holder
from segtrain.sweep.results import TABLE, Results
from segtrain.sweep.search import Search
from segtrain.sweep.trial import Curve, Trial
from segtrain.text import number, say

POLL_S = 0.2


def run_all(search: Search, results: Results, jobs: Jobs | None, folder: Path, stop: Stop) -> int:
    """Trains the trials of a search; after each of them sweep.csv and sweep.json are written anew. Returns
    the exit code: 0 if all finished or were pruned, else 1. Interrupted if a signal came, once the running
    trials have saved.

    jobs: how trials are started as processes; None: in this process. folder: of the sweep.
    """
    sweep = _Sweep(search, results, folder, stop)
    try:
        if jobs is None:
            for trial in iter(sweep.next, None):
                sweep.run(trial, None)
        else:
            _in_processes(sweep, jobs)
    finally:
        for trial in search.trials:
            trial.status = "stopped" if trial.status == "running" else trial.status
        sweep.write()
        again = shlex.join(["segtrain", "sweep", "show", f"sweep={folder}"])
        say(*results.as_text(), str(folder / TABLE), f"{again}  # with importance and a picture")
    if sweep.end is not None:
        raise sweep.end
    stop.raise_if_requested()
    return 1 if any(trial.status in ("failed", "stopped") for trial in search.trials) else 0


def _in_processes(sweep: _Sweep, jobs: Jobs) -> None:
    """A thread waits for each process. joblib asks for the next trial only when a thread is free, so that it
    is chosen with the results so far."""
    joblib = importlib.import_module("joblib")
    parallel = joblib.Parallel(jobs.at_once, prefer="threads", batch_size=1, pre_dispatch=jobs.at_once)
    parallel(joblib.delayed(sweep.run)(trial, jobs) for trial in iter(sweep.next, None))


class _Sweep:
    """A running sweep. Its methods may be called by several threads, and raise nothing.

    end: why no further trial starts: a signal, a study or disk that cannot be written, a launcher that
    starts nothing. None as long as trials may start.
    """

    def __init__(self, search: Search, results: Results, folder: Path, stop: Stop):
        self.search, self.results, self.folder, self.stop = search, results, folder, stop
        self.score = results.score
        self.end: SegtrainError | None = None
        self._lock = threading.RLock()

    @property
    def ends(self) -> bool:
        return self.stop.requested is not None or self.end is not None

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """One thread at a time; an error of the block ends the sweep."""
        with self._lock:
            try:
                yield
            except SegtrainError as error:
                self.end = self.end or error

    def next(self) -> Trial | None:
        """The next trial to train, with its line on the terminal; None if there is none or the sweep ends."""
        with self._ending():
            while not self.ends:
                trial = self.search.next()
                if trial is None:
                    return None
                if trial.status == "failed":  # its values make no valid config
                    self._tell(trial)
                    continue
                say(f"--- trial {trial.number}{self._of()}: {trial} -> {trial.folder}")
                trial.status = "running"
                self.write()
                return trial
        return None

    def _of(self) -> str:
        settings = self.results.settings
        total = settings["trials"] if settings.get("name") == "optuna" else len(self.search.trials)
        return f" of {total}"

    def run(self, trial: Trial, jobs: Jobs | None) -> None:
        """Trains a trial, which a signal or a poor validation curve ends early."""
        watch = _PruningWatch(self, trial)
        try:
            self._train(trial, jobs, watch)
        except Interrupted as error:
            if watch.pruned and not self.ends:
                trial.status = "pruned"
            else:
                trial.status, trial.error = "stopped", str(error)
                self.end = self.end or (None if jobs is not None else error)
        except LaunchError as error:
            trial.status, self.end = "stopped", self.end or error
        except SegtrainError as error:
            trial.status, trial.error = "failed", str(error)
        trial.read_results(self.score)
        self._tell(trial)

    def _train(self, trial: Trial, jobs: Jobs | None, watch: _PruningWatch) -> None:
        self._wait_for_others(trial, watch)
        if scores_if_finished(trial.folder) is not None:
            trial.status = "finished"
        elif jobs is None:
            self._run_here(trial, watch)
        else:
            self._run_in_jobs(trial, jobs, watch)

    def _wait_for_others(self, trial: Trial, watch: _PruningWatch) -> None:
        """Waits while another process trains in the trial's folder: one that an earlier call of the sweep
        started and that outlived it. It is stopped as one of this call is."""
        asked = told = False
        while (owner := holder(trial.folder)) is not None:
            if not told:
                told = True
                say(f"trial {trial.number} is trained by process {owner.get('pid', '?')}: waiting for it")
            if not asked and (self.ends or watch.poll()):
                asked = True
                if not stop_holder(trial.folder):
                    break
            time.sleep(POLL_S)
        if asked and read_record(trial.folder).get("exit_code") != 0:
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        number = self.stop.requested or int(signal.SIGTERM)
        return Interrupted(number, f"stopped by {signal.Signals(number).name}")

    def _run_here(self, trial: Trial, watch: _PruningWatch) -> None:
        made = not trial.folder.is_dir()
        if made:
            create(trial.folder.parent, trial.folder.name)
        words = ["segtrain", "train", *trial.words]
        launch.train_in(trial.folder, made, trial.config, _TrialStop(self, watch), words)
        trial.status = "finished"

    def _run_in_jobs(self, trial: Trial, jobs: Jobs, watch: _PruningWatch) -> None:
        """Trains a trial in a process, or in one job after another while each of them is stopped early, at
        its time limit or by preemption, and has come further than the one before."""
        to_resume = importlib.import_module("segtrain.checkpoint.finding").to_resume
        before = None
        while True:
            with jobs.started(trial, self.results.flags) as job:
                self._wait(trial, job, watch)
            if not jobs.limited or trial.status != "stopped" or self.ends:
                return
            reached = to_resume(trial.folder)
            if reached in (None, before):
                return
            before = reached
            say(f"trial {trial.number}: {trial.error}; started again")
            trial.status, trial.error = "running", ""

    def _wait(self, trial: Trial, job: Job, watch: _PruningWatch) -> None:
        """Waits for the process of a trial, and sets how it ended."""
        before = read_record(trial.folder).get("started")
        asked = False
        while not job.has_ended():
            if not asked and (self.ends or watch.poll()):
                asked = True
                job.stop()
            time.sleep(POLL_S)
        record = read_record(trial.folder)
        began = record.get("started") != before
        code = record.get("exit_code") if began else None
        if code == 0:
            trial.status = "finished"
        elif asked or self.ends:
            raise self._interrupted()
        elif code is not None and code - 128 in SIGNALS:  # the time limit of Slurm, or a person
            trial.status, trial.error = "stopped", record.get("error") or ""
        else:
            trial.status = "failed"
            trial.error = (began and record.get("error")) or job.failure()

    def _tell(self, trial: Trial) -> None:
        with self._ending():
            self.search.tell(trial)
            if trial.error:
                say(f"segtrain: trial {trial.number} {trial.status}: {trial.error}")
            else:
                say(f"trial {trial.number} {trial.status}: {self._value(trial)}")
            self.write()

    def _value(self, trial: Trial) -> str:
        finished = [one.best for one in self.search.trials if one.best and one.status == "finished"]
        best = self.score.best(finished)
        found = f"{self.score.name} {number(trial.best.value)}" if trial.best else "no score"
        return found + (f" (best so far {number(best.value)})" if best else "")

    def write(self) -> None:
        """Writes sweep.csv and sweep.json."""
        with self._ending():
            self.results.trials = self.search.trials
            self.results.write(self.folder)

    def is_to_end(self, trial: Trial, points: list) -> bool:
        """Whether a trial with these validations is to end, since it is poor or since the sweep ends."""
        with self._ending():
            return self.search.prune(trial, points)
        return True


class _PruningWatch:
    """Watches the validation curve of a running trial. pruned: whether the search ends the trial for it."""

    def __init__(self, sweep: _Sweep, trial: Trial):
        self._sweep, self._trial = sweep, trial
        self._curve = Curve(trial.folder, sweep.score.name)
        self.pruned = False

    def poll(self) -> bool:
        """Whether the trial is to end. Reads the curve if the search prunes and the curve has grown."""
        if self._sweep.search.prunes and not self.pruned:
            points = self._curve.news()
            self.pruned = bool(points) and self._sweep.is_to_end(self._trial, points)
        return self.pruned


class _TrialStop:
    """The `Stop` of a trial in this process: that of the sweep, and the end of this trial alone."""

    def __init__(self, sweep: _Sweep, watch: _PruningWatch):
        self._outer, self._watch = sweep.stop, watch
        self.at_once, self.request = sweep.stop.at_once, sweep.stop.request

    @property
    def requested(self) -> int | None:
        outer = self._outer.requested
        return outer if outer is not None or not self._watch.poll() else int(signal.SIGTERM)

    def agree(self) -> None:
        """One process has nobody to ask."""

    def raise_if_requested(self, message: str | None = None) -> None:
        self._outer.raise_if_requested(message)
        if self.requested is not None:
            raise Interrupted(
                self.requested, "pruned: its validation score is worse than that of other trials"
            )
