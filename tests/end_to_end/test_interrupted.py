"""Runs that are ended by a signal go on as if nothing had happened, with any number of workers."""

import json
import signal
import time

import pytest
from conftest import TINY, run, start

STEPS = ("trainer.steps=40", "trainer.save_every=2", "trainer.evaluate_every=20", "trainer.ema=0.9")


def line(name, workers):
    return ("train", *TINY, *STEPS, f"name={name}", "resume=auto", f"loader.workers={workers}")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    place = tmp_path_factory.mktemp("straight")
    ended = run(*line("run", 0), cwd=place)
    assert ended.returncode == 0, ended.stderr
    return place / "outputs" / "run"


def wait_for_step(folder, step, process, limit_s=120):
    """Until the loss of `step` is written."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()[1]
        file = folder / "metrics.jsonl"
        if file.exists() and any(
            json.loads(text)["step"] >= step for text in file.read_text().splitlines() if text.endswith("}")
        ):
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"step {step} was not reached in {limit_s} s")


def losses(folder):
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(one["step"], one.get("train/loss"), one.get("train/rate"), one.get("val/miou")) for one in lines]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),  # as whole runs of scripts/faults.py
    ],
)
def test_resumed_runs_equal_the_straight_one(straight, tmp_path, number, code):
    folder = tmp_path / "outputs" / "run"
    process = start(*line("run", 2), cwd=tmp_path)
    wait_for_step(folder, 7, process)
    sent = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert time.monotonic() - sent < 10
    if number != signal.SIGKILL:
        assert "checkpoint is saved" in errors and "Traceback" not in errors
    ended = run(*line("run", 1), cwd=tmp_path)
    assert ended.returncode == 0 and "resuming from" in ended.stdout, ended.stderr
    for name in ("model.safetensors", "state.pt"):
        same = (folder / "checkpoints" / "40" / name).read_bytes() == (
            straight / "checkpoints" / "40" / name
        ).read_bytes()
        assert same or name == "state.pt", f"{name} differs"
    assert losses(folder) == losses(straight)


def test_a_second_run_in_the_folder_is_refused_at_once(tmp_path):
    process = start(*line("run", 0), cwd=tmp_path)
    try:
        wait_for_step(tmp_path / "outputs" / "run", 1, process)
        began = time.monotonic()
        second = run(*line("run", 0), cwd=tmp_path)
        assert second.returncode == 2 and str(process.pid) in second.stderr, second.stderr
        assert time.monotonic() - began < 10  # 3 s on a machine that has nothing else to do
    finally:
        process.kill()
        process.communicate()
