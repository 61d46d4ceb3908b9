"""trainer.requeue=slurm of single runs, stages and sweeps, with a training that takes no time."""

import signal

import pytest

from segtrain.errors import Interrupted

NAMED = ("name=x", "resume=auto", "trainer.requeue=slurm")


@pytest.fixture
def requeued(tmp_path, monkeypatch, training):
    """The words that scontrol was called with; the training is stopped by SIGTERM."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/words\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")

    def stop(*_):
        raise Interrupted(signal.SIGTERM, "stopped")

    training.act = stop
    return lambda: (tmp_path / "words").read_text() if (tmp_path / "words").exists() else ""


@pytest.mark.parametrize(
    "words",
    [
        NAMED,
        ("resume=auto", "hydra.run.dir=place/x", "trainer.requeue=slurm"),
        ("--multirun", "seed=0,1", "name=x", "trainer.requeue=slurm"),
        ("experiment=fcn_paper", "data=shapes", *NAMED),
    ],
    ids=["run", "by place", "sweep", "stages"],
)
def test_a_stopped_run_is_requeued_once(segtrain, requeued, words):
    result = segtrain("train", *words)
    assert result.code == 143, result.err
    assert requeued() == "requeue 7\n"


@pytest.mark.parametrize(
    "words",
    [
        ("name=x", "trainer.requeue=slurm"),
        ("trainer.requeue=slurm",),
        ("--multirun", "seed=0,1", "trainer.requeue=slurm"),
        ("--multirun", "seed=0", "trainer.requeue=null,slurm"),
    ],
)
def test_a_run_that_would_begin_anew_is_refused(segtrain, requeued, training, tmp_path, words):
    segtrain("train", *words).refused("trainer.requeue=slurm", "add name=NAME resume=auto")
    assert requeued() == "" and not training.configs and not (tmp_path / "outputs").exists()


def test_outside_of_slurm_only_a_dry_run_takes_it(segtrain, training, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    segtrain("train", *NAMED).refused("SLURM_JOB_ID is not set", "trainer.requeue=null")
    assert segtrain("train", *NAMED, "dry_run=true").code == 0


def test_a_resumed_run_may_begin_to_requeue(segtrain, requeued, training):
    training.act = None
    assert segtrain("train", "name=x").code == 0
    training.act = lambda *_: None
    assert segtrain("train", *NAMED, "trainer.log_every=5").code == 0
    assert training.configs[-1]["trainer"]["requeue"] == "slurm"
