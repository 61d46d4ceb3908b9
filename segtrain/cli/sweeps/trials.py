"""Runs the trials of a sweep: one after another in this process, or several at a time as processes."""

from __future__ import annotations

import importlib
import signal
import threading
import time
from pathlib import Path

from segtrain.cli import launch
from segtrain.errors import Interrupted, SegtrainError
from segtrain.run.folder import create
from segtrain.run.lock import holder
from segtrain.run.record import read_record
from segtrain.run.requeue import SIGNALS
from segtrain.run.stop import Stop
from segtrain.settings import Launcher
from segtrain.sweep.jobs import Job, Jobs, jobs_of
from segtrain.sweep.results import TABLE, Results
from segtrain.sweep.search import Search
from segtrain.sweep.trial import Curve, Trial
from segtrain.text import number, say

POLL_S = 0.2


def run_all(search: Search, results: Results, launcher: Launcher, folder: Path, stop: Stop) -> int:
    """Trains the trials of a search; after each of them sweep.csv and sweep.json are written anew. Returns
    the exit code: 0 if none failed, else 1. Interrupted if a signal came, once the running trials have saved.

    folder: of the sweep.
    """
    sweep = _Sweep(search, results, folder, stop)
    try:
        if launcher.name is None:
            for trial in iter(sweep.next, None):
                sweep.run(trial, None)
        else:
            _in_processes(sweep, jobs_of(launcher, folder))
        if sweep.interrupted is not None:
            raise sweep.interrupted
        stop.raise_if_requested()
    finally:
        sweep.write()
        say(*results.as_text(), str(folder / TABLE), f"segtrain sweep show sweep={folder}   the same, drawn")
    return 1 if any(trial.status == "failed" for trial in search.trials) else 0


def _in_processes(sweep: _Sweep, jobs: Jobs) -> None:
    """A thread waits for each running process; joblib asks for the next trial when one has ended."""
    joblib = importlib.import_module("joblib")
    parallel = joblib.Parallel(jobs.at_once, prefer="threads", batch_size=1, pre_dispatch=jobs.at_once)
    parallel(joblib.delayed(sweep.run)(trial, jobs) for trial in iter(sweep.next, None))


class _Sweep:
    """A running sweep. Its methods may be called by several threads."""

    def __init__(self, search: Search, results: Results, folder: Path, stop: Stop):
        self.search, self.results, self.folder, self.stop = search, results, folder, stop
        self.score = results.score
        self.interrupted: Interrupted | None = None
        self._lock = threading.RLock()

    def next(self) -> Trial | None:
        """The next trial to train, with its line on the terminal; None if there is none, or a signal came."""
        with self._lock:
            while self.stop.requested is None and self.interrupted is None:
                trial = self.search.next()
                self.write()
                if trial is None:
                    return None
                if trial.status == "failed":  # its values make no valid config
                    self._ended(trial)
                    continue
                say(f"--- trial {trial.number}{self._of()}: {trial} -> {trial.folder}")
                trial.status = "running"
                return trial
        return None

    def _of(self) -> str:
        settings = self.results.settings
        total = settings["trials"] if settings.get("name") == "optuna" else len(self.search.trials)
        return f" of {total}"

    def run(self, trial: Trial, jobs: Jobs | None) -> None:
        """Trains a trial, which a signal or a poor validation curve ends early. Raises nothing but what stops
        the whole sweep."""
        curve = _PrunedCurve(self, trial)
        try:
            self._wait_for_others(trial, curve)
            if read_record(trial.folder).get("exit_code") == 0:
                trial.status = "finished"
            elif jobs is None:
                self._run_here(trial, curve)
            else:
                self._run_in_jobs(trial, jobs, curve)
        except Interrupted as error:
            if curve.pruned and self.stop.requested is None:
                trial.status = "pruned"
            else:
                trial.status, trial.error, self.interrupted = "stopped", str(error), error
        except SegtrainError as error:
            trial.status, trial.error = "failed", str(error)
        trial.read_results(self.score)
        self._ended(trial)

    def _wait_for_others(self, trial: Trial, curve: _PrunedCurve) -> None:
        """Waits while another process trains in the trial's folder: one that an earlier call of the sweep
        started and that outlived it."""
        told = False
        while (owner := holder(trial.folder)) is not None:
            if not told:
                say(f"trial {trial.number} is trained by process {owner.get('pid', '?')}: waiting for it")
                told = True
            self.stop.raise_if_requested()
            curve.poll()
            time.sleep(POLL_S)

    def _run_here(self, trial: Trial, curve: _PrunedCurve) -> None:
        made = not trial.folder.is_dir()
        if made:
            create(trial.folder.parent, trial.folder.name)
        words = ["segtrain", "train", *trial.words]
        launch.train_in(trial.folder, made, trial.config, _TrialStop(self.stop, curve), words)
        trial.status = "finished"

    def _run_in_jobs(self, trial: Trial, jobs: Jobs, curve: _PrunedCurve) -> None:
        """Trains a trial in a process, or in one job after another while each of them is stopped early, at
        its time limit or by preemption, and has come further than the one before."""
        resumable = importlib.import_module("segtrain.checkpoint.finding").to_resume
        before = None
        while True:
            with jobs.started(trial, self.results.flags) as job:
                self._wait(trial, job, curve)
            stopped = (read_record(trial.folder).get("exit_code") or 0) - 128 in SIGNALS
            if not jobs.limited or trial.status != "failed" or not stopped:
                return
            reached = resumable(trial.folder)
            if reached in (None, before) or self.stop.requested is not None:
                return
            before = reached
            say(f"trial {trial.number}: {trial.error}; started again")
            trial.status, trial.error = "running", ""

    def _wait(self, trial: Trial, job: Job, curve: _PrunedCurve) -> None:
        """Waits for the process of a trial, and sets how it ended."""
        before = read_record(trial.folder).get("started")
        asked = False
        while not job.ended():
            if (self.stop.requested is not None or curve.poll()) and not asked:
                asked = True
                job.stop()
            time.sleep(POLL_S)
        record = read_record(trial.folder)
        began = record.get("started") != before
        if record.get("exit_code") == 0 and began:
            trial.status = "finished"
        elif asked:
            number_of = self.stop.requested or int(signal.SIGTERM)
            raise Interrupted(number_of, f"stopped by {signal.Signals(number_of).name}")
        else:
            trial.status = "failed"
            trial.error = (began and record.get("error")) or job.failure()

    def _ended(self, trial: Trial) -> None:
        with self._lock:
            self.search.ended(trial)
            if trial.error:
                say(f"segtrain: trial {trial.number} {trial.status}: {trial.error}")
            else:
                say(f"trial {trial.number} {trial.status}: {self._value(trial)}")
            self.write()

    def _value(self, trial: Trial) -> str:
        best = self.score.best(
            [one.best for one in self.search.trials if one.best and one.status == "finished"]
        )
        found = f"{self.score.name} {number(trial.best.value)}" if trial.best else "no score"
        return found + (f" (best so far {number(best.value)})" if best else "")

    def write(self) -> None:
        with self._lock:
            self.results.trials = self.search.trials
            self.results.write(self.folder)

    def prune(self, trial: Trial, points: list) -> bool:
        with self._lock:
            return self.search.prune(trial, points)


class _PrunedCurve:
    """The validation curve of a running trial, and whether the search has ended the trial for it."""

    def __init__(self, sweep: _Sweep, trial: Trial):
        self._sweep, self._trial = sweep, trial
        self._curve = Curve(trial.folder, sweep.score.name)
        self.pruned = False

    def poll(self) -> bool:
        """Whether the trial is to end. Reads the curve if it has grown."""
        if not self.pruned:
            points = self._curve.news()
            self.pruned = bool(points) and self._sweep.prune(self._trial, points)
        return self.pruned


class _TrialStop:
    """The `Stop` of a trial in this process: that of the sweep, and the end of this trial alone."""

    def __init__(self, outer: Stop, curve: _PrunedCurve):
        self._outer, self._curve = outer, curve
        self.at_once, self.request = outer.at_once, outer.request

    @property
    def requested(self) -> int | None:
        outer = self._outer.requested
        return outer if outer is not None or not self._curve.poll() else int(signal.SIGTERM)

    def agree(self) -> None:
        """One process has nobody to ask."""

    def raise_if_requested(self, message: str | None = None) -> None:
        self._outer.raise_if_requested(message)
        if self.requested is not None:
            raise Interrupted(self.requested, "pruned: its validation score is below that of other trials")
