"""Trials of a sweep as processes of their own."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segtrain.run.lock import holder

pytest.importorskip("joblib")

TINY = (
    *("data=shapes", "data.size=48", "data.num_train=4", "data.num_val=2", "device=cpu", "model=unet"),
    *("model.widths=[4,8]", "augmentation=none", "loader.batch_size=2", "loader.workers=0"),
    *("evaluate.workers=0", "trainer.steps=2", "threads=1"),
)


def start(folder, *words) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "segtrain", "train", *TINY, "name=s", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rows(folder) -> dict[str, dict]:
    with open(folder / "outputs/s/sweep.csv", newline="") as file:
        return {row["seed"]: row for row in csv.DictReader(file)}


def ended(process, within_s=240) -> tuple[int, str]:
    try:
        out, _ = process.communicate(timeout=within_s)
    finally:
        process.kill()
    return process.returncode, out


@pytest.mark.slow
def test_processes_train_what_one_process_trains_and_a_failure_stays_with_its_trial(tmp_path):
    code, out = ended(
        start(tmp_path, "launcher=joblib", "launcher.jobs=2", "-m", "seed=0,1", "init=null,gone")
    )
    assert code == 1, out
    with open(tmp_path / "outputs/s/sweep.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["status"] for row in table] == ["finished", "finished", "failed", "failed"]
    assert all("gone" in row["error"] and "\n" not in row["error"] for row in table[2:])
    alone, text = ended(start(tmp_path, "seed=1", "name=alone"))
    assert alone == 0, text
    [folder] = [row["folder"] for row in table if (row["seed"], row["init"]) == ("1", "null")]
    same = [tmp_path / one / "checkpoints/2/model.safetensors" for one in (folder, "outputs/alone")]
    assert same[0].read_bytes() == same[1].read_bytes()


def wait_for(condition, process, limit_s=120):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)


LONG = ("trainer.steps=4000", "trainer.evaluate_every=null", "trainer.save_every=20", "trainer.log_every=20")


@pytest.mark.parametrize(
    "launcher",
    [
        ("launcher=joblib", "launcher.jobs=2"),
        pytest.param(("launcher=submitit", "launcher.jobs=2", "launcher.gpus=0"), marks=pytest.mark.slow),
    ],
    ids=["joblib", "submitit"],
)
def test_a_signal_lets_all_trials_save_and_leaves_no_process(tmp_path, launcher):
    if launcher[0].endswith("submitit"):
        pytest.importorskip("submitit")
    process = start(tmp_path, *launcher, "-m", "seed=1,2", *LONG)
    folders = [tmp_path / f"outputs/s/seed-{seed}" for seed in (1, 2)]
    wait_for(lambda: all(any(one.glob("checkpoints/[1-9]*")) for one in folders), process)
    process.send_signal(signal.SIGTERM)
    code, out = ended(process, within_s=30)
    assert code == 143, out
    assert {row["status"] for row in rows(tmp_path).values()} == {"stopped"}
    for folder in folders:
        assert json.loads((folder / "run.json").read_text())["exit_code"] == 143
    assert not left_behind(tmp_path)


def left_behind(folder, within_s=10) -> list[str]:
    """Command lines of the processes that still work in a folder when the time is over: a process that has
    freed its lock needs a moment to end."""
    end = time.monotonic() + within_s
    while (found := working_in(folder)) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def working_in(folder) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") == str(folder):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_trial_that_outlives_the_sweep_is_waited_for_not_started_twice(tmp_path):
    words = ("launcher=joblib", "launcher.jobs=1", "-m", "seed=1,2", *LONG[1:], "trainer.steps=400")
    process = start(tmp_path, *words)
    folder = tmp_path / "outputs/s/seed-1"
    wait_for(lambda: any(folder.glob("checkpoints/[1-9]*")), process)
    process.kill()
    process.communicate()
    code, out = ended(start(tmp_path, *words))
    assert code == 0, out
    assert "is trained by process" in out and "waiting for it" in out
    record = json.loads((folder / "run.json").read_text())
    assert record["exit_code"] == 0 and record["earlier"] == []
    assert not left_behind(tmp_path)


@pytest.mark.slow
def test_a_trial_that_outlives_the_sweep_is_stopped_with_the_next_call(tmp_path):
    words = ("launcher=joblib", "launcher.jobs=1", "-m", "seed=1,2", *LONG)
    process = start(tmp_path, *words)
    wait_for(lambda: any(tmp_path.glob("outputs/s/seed-1/checkpoints/[1-9]*")), process)
    process.kill()
    process.communicate()
    process = start(tmp_path, *words)
    line = next(line for line in process.stdout if "is trained by process" in line)
    process.send_signal(signal.SIGTERM)
    code, out = ended(process, within_s=30)
    assert code == 143, line + out
    assert not left_behind(tmp_path)
    assert json.loads((tmp_path / "outputs/s/seed-1/run.json").read_text())["exit_code"] == 143


@pytest.mark.slow
def test_a_trial_that_somebody_stops_is_stopped_not_failed(tmp_path):
    process = start(
        tmp_path, "launcher=joblib", "launcher.jobs=1", "-m", "seed=1,2", *LONG[1:], "trainer.steps=600"
    )
    folder = tmp_path / "outputs/s/seed-1"
    wait_for(lambda: any(folder.glob("checkpoints/[1-9]*")), process)
    os.kill(json.loads((folder / ".lock").read_text())["pid"], signal.SIGUSR2)
    code, out = ended(process)
    assert code == 1, out
    assert [rows(tmp_path)[seed]["status"] for seed in ("1", "2")] == ["stopped", "finished"]


@pytest.mark.slow
def test_jobs_of_submitit_prune_and_finish(tmp_path):
    pytest.importorskip("submitit")
    pytest.importorskip("optuna")
    words = ("sweep=optuna", "sweep.trials=3", "optimizer.lr=interval(0.001,0.1)", "launcher.gpus=0")
    code, out = ended(start(tmp_path, "launcher=submitit", "launcher.jobs=2", *words))
    assert code == 0, out
    with open(tmp_path / "outputs/s/sweep.csv", newline="") as file:
        assert {row["status"] for row in csv.DictReader(file)} == {"finished"}
    assert len(list((tmp_path / "outputs/s/submitit").glob("*_submitted.pkl"))) == 3


@pytest.mark.slow
def test_a_job_that_is_stopped_by_others_than_the_sweep_is_followed_by_another(tmp_path):
    """As by preemption, or at the time limit of a job."""
    pytest.importorskip("submitit")
    long = ("trainer.steps=400", "trainer.evaluate_every=null", "trainer.save_every=10")
    process = start(tmp_path, "launcher=submitit", "launcher.jobs=1", "launcher.gpus=0", "-m", *long)
    folder = tmp_path / "outputs/s/only"
    wait_for(lambda: any(folder.glob("checkpoints/[1-9]*")), process)
    os.kill(holder(folder)["pid"], signal.SIGTERM)
    code, out = ended(process)
    assert code == 0, out
    assert "a checkpoint is saved; started again" in out
    record = json.loads((folder / "run.json").read_text())
    assert record["exit_code"] == 0 and [one["exit_code"] for one in record["earlier"]] == [143]
