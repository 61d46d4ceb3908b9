"""How processes of trials are placed and how their ends are told."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace

import pytest

from segtrain.settings import Launcher
from segtrain.sweep import jobs
from segtrain.sweep.trial import Trial


@pytest.mark.parametrize(
    ("visible", "at_once", "places"),
    [
        ("0,1", 2, ["0", "1"]),
        ("3, GPU-abc", 3, ["3", "GPU-abc", "3"]),
        ("5", 1, ["5"]),
    ],
)
def test_each_process_has_one_of_the_visible_gpus(monkeypatch, visible, at_once, places):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus = jobs.visible_gpus()
    found = [jobs.place_of(gpus, place, at_once) for place in range(at_once)]
    assert found == [{"CUDA_VISIBLE_DEVICES": one} for one in places]


@pytest.mark.parametrize("visible", ["", "-1"])
def test_without_a_visible_gpu_the_processes_share_the_cores(monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(jobs, "num_cores", lambda: 8)
    assert jobs.visible_gpus() == []
    assert jobs.place_of([], 1, 3) == {"OMP_NUM_THREADS": "2"}
    assert jobs.place_of([], 1, 20) == {"OMP_NUM_THREADS": "1"}


def test_the_user_s_number_of_threads_counts(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    found = jobs.environment({"OMP_NUM_THREADS": "1"})
    assert found["OMP_NUM_THREADS"] == "3"
    assert jobs.environment({"CUDA_VISIBLE_DEVICES": "1"})["CUDA_VISIBLE_DEVICES"] == "1"


def test_the_last_error_of_a_log_and_the_end_of_a_process_in_words(tmp_path):
    log = tmp_path / "x.log"
    assert jobs.last_error(log) == ""
    log.write_text("segtrain: error: first\nstep 1\nsegtrain: error: data.root is missing\nmore\n")
    assert jobs.last_error(log) == "data.root is missing"
    log.write_text("step 1\n" * 100_000 + "segtrain: error: at the end of a long log\n")
    assert jobs.last_error(log) == "at the end of a long log"
    assert jobs.how_ended(-9) == "killed by SIGKILL (out of memory?)"
    assert jobs.how_ended(-15) == "killed by SIGTERM"
    assert jobs.how_ended(6) == "ended with exit code 6"


class Slurm:
    """Stands in for submitit: numbers of jobs, of which those in `there` have not ended."""

    def __init__(self, refuses=""):
        self.submitted, self.there, self.refuses = [], set(), refuses

    def submit(self, command):
        if self.refuses:
            raise pytest.importorskip("submitit").core.utils.FailedJobError(self.refuses)
        self.submitted.append(command.words)
        return self.job_class(None, str(100 + len(self.submitted)))

    def job_class(self, folder, number):
        return SimpleNamespace(job_id=number, done=lambda: number not in self.there)


@pytest.fixture
def slurm_jobs(tmp_path):
    pytest.importorskip("submitit")
    made = jobs.SlurmJobs(Launcher(name="submitit", cluster="local", gpus=0), tmp_path)
    made._logs.mkdir(exist_ok=True)
    made._executor = Slurm()
    return made


def test_a_job_that_still_waits_in_the_queue_is_not_submitted_again(slurm_jobs, tmp_path):
    trial = Trial(1, {"seed": "1"}, ["seed=1"], folder=tmp_path / "trial001")
    with slurm_jobs.started(trial, []) as job:
        assert job.has_ended()
    slurm_jobs._executor.there = {"101"}
    with slurm_jobs.started(trial, []) as job:  # as the next call of the sweep does
        assert not job.has_ended()
    assert len(slurm_jobs._executor.submitted) == 1
    slurm_jobs._executor.there = set()
    with slurm_jobs.started(trial, []):
        assert len(slurm_jobs._executor.submitted) == 2


def test_a_job_that_slurm_refuses_ends_the_sweep_with_its_reason(slurm_jobs, tmp_path):
    slurm_jobs._executor.refuses = "sbatch: error: invalid partition specified: nope"
    trial = Trial(1, {}, folder=tmp_path / "trial001")
    reason = "invalid partition specified: nope; check launcher"
    with pytest.raises(jobs.LaunchError, match=reason), slurm_jobs.started(trial, []):
        pass


def test_a_trial_is_one_run_of_its_own(tmp_path):
    trial = Trial(1, {"seed": "1"}, ["experiment=x", "seed=1"], folder=tmp_path / "trial001")
    words = jobs._words(trial, ["--config-dir=conf"])
    assert words[1:5] == ["-m", "segtrain", "train", "--config-dir=conf"]
    assert words[-7:-5] == ["experiment=x", "seed=1"]
    assert set(words[-5:]) == {
        "sweep=null",
        "launcher=null",
        "trainer.requeue=null",
        "resume=auto",
        f"hydra.run.dir={trial.folder}",
    }


def test_local_jobs_of_submitit_have_a_gpu_each(tmp_path, monkeypatch):
    """submitit itself would give GPU 0 to all of them, whatever CUDA_VISIBLE_DEVICES holds."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    commands = []

    def submit(_, command):
        commands.append(command)
        return SimpleNamespace(job_id=len(commands))

    monkeypatch.setattr("submitit.AutoExecutor.submit", submit)
    submitted = jobs.jobs_of(Launcher(name="submitit", cluster="local"), tmp_path)
    assert submitted.at_once == 2
    first, second, third, fourth = (Trial(n, {}, folder=tmp_path / f"trial{n}") for n in range(1, 5))
    with submitted.started(first, []), submitted.started(second, []):
        pass
    with submitted.started(third, []):
        pass
    assert [one.place for one in commands] == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("3", "5", "5")]
    without = jobs.jobs_of(Launcher(name="submitit", cluster="local", gpus=0, jobs=2), tmp_path)
    assert without.at_once == 2
    with without.started(fourth, []):
        assert "CUDA_VISIBLE_DEVICES" not in commands[-1].place


SAVES = """
import signal, sys, time
def save(*_):
    time.sleep(0.5)
    open(sys.argv[1], "w").write("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
open(sys.argv[1], "w").write("began")
time.sleep(30)
"""


def test_a_job_at_its_time_limit_lets_the_trial_save(tmp_path):
    """submitit's signal handler raises in the job; the process of the trial is stopped, not killed."""
    file = tmp_path / "file"

    def limit(*_):
        if not file.exists() or file.read_text() != "began":
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            return
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, limit)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(TimeoutError):
            jobs.Command([sys.executable, "-c", SAVES, str(file)], {})()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert file.read_text() == "saved"


def test_a_job_fails_as_its_trial_does():
    jobs.Command([sys.executable, "-c", "import os; assert os.environ['GPU'] == '1'"], {"GPU": "1"})()
    with pytest.raises(RuntimeError, match="ended with exit code 4"):
        jobs.Command([sys.executable, "-c", "raise SystemExit(4)"], {})()
