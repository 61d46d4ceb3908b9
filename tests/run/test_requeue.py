"""A run that Slurm stops is requeued, and no other."""

import signal

import pytest

from segtrain.errors import ConfigError, Interrupted
from segtrain.run.requeue import requeued


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """scontrol(lines) puts a program of that name first on PATH; `words()` are those it was called with."""
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/bin:/usr/bin")

    def write(lines: str = "") -> None:
        program = tmp_path / "bin" / "scontrol"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/words\n{lines}\n')
        program.chmod(0o755)

    write()
    write.words = lambda: (tmp_path / "words").read_text().split() if (tmp_path / "words").exists() else []
    return write


def stop_by(number: int) -> None:
    with pytest.raises(Interrupted) as caught, requeued("slurm", resumable=True):
        raise Interrupted(number, "stopped")
    assert caught.value.exit_code == 128 + number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU])
def test_a_signal_of_slurm_requeues_the_job(number, scontrol, capsys):
    stop_by(number)
    assert scontrol.words() == ["requeue", "4711"]
    assert "requeued the Slurm job 4711" in capsys.readouterr().out


def test_of_an_array_only_the_stopped_task_is_requeued(scontrol, monkeypatch):
    """The last task of an array has the array's number as its own; requeued by it, all tasks would start."""
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    stop_by(signal.SIGTERM)
    assert scontrol.words() == ["requeue", "4711_3"]


def test_a_person_who_ends_a_run_does_not_find_it_again(scontrol):
    stop_by(signal.SIGINT)
    stop_by(signal.SIGHUP)
    assert scontrol.words() == []


def test_neither_an_end_nor_an_error_requeues(scontrol):
    with requeued("slurm", resumable=True):
        pass
    with pytest.raises(ZeroDivisionError), requeued("slurm", resumable=True):
        raise ZeroDivisionError
    with pytest.raises(Interrupted), requeued(None, resumable=False):
        raise Interrupted(signal.SIGTERM, "stopped")
    assert scontrol.words() == []


def test_rank_0_alone_requeues(scontrol, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        assert scontrol.words() == []
        monkeypatch.setenv("RANK", rank)
        stop_by(signal.SIGTERM)
    assert scontrol.words() == ["requeue", "4711"]


def test_what_scontrol_refuses_is_told(scontrol, capsys):
    scontrol("echo 'slurm_requeue error: Job has no requeue' >&2; exit 1")
    stop_by(signal.SIGTERM)
    said = capsys.readouterr()
    assert "4711 could not be requeued (slurm_requeue error: Job has no requeue)" in said.err
    assert said.err.count("\n") == 1 and not said.out


def test_a_missing_or_silent_scontrol_is_told(scontrol, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("segtrain.run.requeue.LIMIT_S", 0.2)
    scontrol("exec sleep 60")
    stop_by(signal.SIGTERM)
    (tmp_path / "bin" / "scontrol").unlink()
    stop_by(signal.SIGTERM)
    said = capsys.readouterr()
    assert said.err.count("could not be requeued") == said.err.count("\n") == 2 and not said.out
    assert "timed out" in said.err and "No such file" in said.err


@pytest.mark.parametrize(
    ("job", "resumable", "parts"),
    [
        (None, True, "SLURM_JOB_ID is not set; start the run by sbatch, or set trainer.requeue=null"),
        ("", True, "SLURM_JOB_ID is not set"),
        ("12; reboot", True, "SLURM_JOB_ID is '12; reboot'"),
        ("--all", True, "SLURM_JOB_ID is '--all'"),
        ("12_3", False, "add name=NAME resume=auto"),
    ],
)
def test_what_could_not_resume_is_refused_at_the_start(job, resumable, parts, scontrol, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID") if job is None else monkeypatch.setenv("SLURM_JOB_ID", job)
    with pytest.raises(ConfigError) as caught, requeued("slurm", resumable):
        raise AssertionError("the run has begun")
    assert parts in str(caught.value)


def test_a_task_that_is_no_number_is_refused(scontrol, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3; reboot")
    with pytest.raises(ConfigError, match="SLURM_ARRAY_TASK_ID is '4711_3; reboot'"), requeued("slurm", True):
        raise AssertionError("the run has begun")
