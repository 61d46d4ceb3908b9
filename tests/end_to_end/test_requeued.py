"""A job that Slurm preempts saves, is requeued, and resumes when it starts again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

RANKS = Path(__file__).parents[1] / "ranks"
WORDS = (
    *("train", "data.size=48", "data.num_train=8", "data.num_val=2", "model=unet", "model.widths=[4,8]"),
    *("augmentation=none", "loader.batch_size=2", "loader.workers=0", "evaluate.workers=0", "device=cpu"),
    *("trainer.log_every=1", "name=run", "resume=auto", "trainer.requeue=slurm"),
)
SCONTROL = """#!/bin/sh
ls outputs/run/checkpoints/last/manifest.json && echo "$@" >> words
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Slurm's signals, and /proc")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The directory of a Slurm job, whose scontrol notes its words if a checkpoint is there."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(SCONTROL)
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def started(job) -> subprocess.Popen:
    """A long run in the job's folder, its two streams in one."""
    command = [sys.executable, "-m", "segtrain", *WORDS, "trainer.steps=100000"]
    return subprocess.Popen(command, cwd=job, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_preempted_run_goes_on_when_its_job_starts_again(job):
    process = started(job)
    try:
        assert any(line.startswith("step 3 of") for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 143, out
    assert out.count("requeued the Slurm job 4711") == 1 and "a checkpoint is saved" in out
    assert (job / "words").read_text() == "requeue 4711\n"
    process = started(job)
    try:
        assert any(line.startswith("resuming from outputs/run/checkpoints/") for line in process.stdout)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_several_ranks_are_requeued_once(job, monkeypatch, number):
    """As scripts/slurm.sh starts them: the signal comes to torchrun, which passes it on."""
    monkeypatch.syspath_prepend(str(RANKS))
    from launched import end, start, wait_for

    log = job / "log.txt"
    with open(log, "w") as file:
        process = start(
            *WORDS,
            "trainer.steps=100000",
            cwd=job,
            log=file,
            options=("--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",),
        )
    try:
        wait_for(lambda: "step 3 of" in log.read_text() or process.poll() is not None)
        os.kill(process.pid, number)
        process.wait(timeout=40)
    finally:
        end(process)
    said = log.read_text()
    assert said.count("requeued the Slurm job 4711") == 1, said
    assert (job / "words").read_text() == "requeue 4711\n" and "a checkpoint is saved" in said
