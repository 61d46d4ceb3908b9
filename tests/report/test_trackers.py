"""The sinks of a run: lines where no bar is seen, TensorBoard's file, and one error for storage that refuses."""

import errno
import io
import json
import os
import re
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segtrain.errors import CheckpointError
from segtrain.report.trackers import Events

NUMBERS = {"train/loss": 0.25, "train/rate": 1e-3, "train/images_per_s": 12.34, "train/waiting": 0.5}


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.mark.parametrize(
    ("stdout", "stderr", "line", "bar"),
    [
        (True, True, False, True),
        (False, True, True, True),
        (True, False, True, False),
        (False, False, True, False),
    ],
)
def test_the_loss_is_a_line_where_no_bar_shows_it(monkeypatch, stdout, stderr, line, bar):
    out, err = Stream(stdout), Stream(stderr)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    events = Events(None, 10, 40)
    events.log(20, NUMBERS)
    events.log(20, {"val/miou": 0.5})
    events.progress(10, {"loss": "0.2500"})
    events.close()
    said = out.getvalue()
    pattern = r"step 20 of 40: loss 0\.2500, rate 1\.00e-03, 12\.3 images/s, ETA \d+:\d\d:\d\d\n"
    assert re.fullmatch(pattern if line else "", said), said
    assert ("loss=0.2500" in err.getvalue()) == bar and "%|" not in said


def test_the_remaining_time_follows_the_mean_pace(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stdout", out := Stream(False))
    events = Events(None, 10, 40)
    now[0] += 60  # for 10 steps, so that the remaining 20 take two minutes
    events.log(20, NUMBERS)
    assert out.getvalue().endswith("ETA 0:02:00\n")


def test_tensorboard_reads_what_was_logged_and_drops_what_is_made_anew(tmp_path):
    sheet = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    first = Events(tmp_path, 0, 40)
    for step in (10, 20, 30):
        first.log(step, {"train/loss": step / 10, **NUMBERS, "val/curve": [1, 2]})
    first.picture(30, "val/sheet", sheet)
    first.close()
    resumed = Events(tmp_path, 20, 40)
    resumed.log(30, {"val/miou": 0.5})
    resumed.close()
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [(one.step, one.value) for one in board.Scalars("train/rate")] == [
        (10, pytest.approx(1e-3)),
        (20, pytest.approx(1e-3)),
    ]
    assert [one.step for one in board.Scalars("val/miou")] == [30]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30] and "val/curve" in lines[0]


@pytest.mark.parametrize("behind_s", [0, 3600], ids=["within a second", "on a machine whose clock is behind"])
def test_tensorboard_shows_the_steps_of_a_run_that_was_resumed(tmp_path, monkeypatch, behind_s):
    """TensorBoard reads the files in the order of their names."""
    now = [2e9]
    monkeypatch.setattr("time.time", lambda: now[0])
    for first_step in range(0, 120, 10):  # so many that the count behind the time has one digit more
        events = Events(tmp_path, first_step, 120)
        events.log(first_step + 5, NUMBERS)
        events.log(first_step + 10, NUMBERS)
        events.close()
        now[0] -= behind_s
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [one.step for one in board.Scalars("train/loss")] == list(range(5, 121, 5))


@pytest.mark.parametrize("sink", ["metrics.jsonl", "events.out"])
def test_a_sink_that_the_disk_refuses_is_one_error_and_keeps_what_it_held(tmp_path, monkeypatch, sink):
    events = Events(tmp_path, 0, 40)
    events.log(10, NUMBERS)
    before = read(tmp_path)
    write = os.write

    def full(descriptor, data):
        if sink not in os.readlink(f"/proc/self/fd/{descriptor}"):
            return write(descriptor, data)
        write(descriptor, data[: len(data) // 2])  # a full disk takes what fits
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CheckpointError, match=rf"cannot write .*{sink}.*: the disk is full"):
        events.log(20, NUMBERS)
    assert all(data == before[name] for name, data in read(tmp_path).items() if sink in name)
    if sink == "events.out":
        with pytest.raises(CheckpointError, match="the disk is full"):
            events.picture(20, "val/sheet", np.zeros((4, 4, 3), np.uint8))
        assert all(data == before[name] for name, data in read(tmp_path).items() if sink in name)


def read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
