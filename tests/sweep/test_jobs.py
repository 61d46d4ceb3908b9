"""How processes of trials are placed and how their ends are told."""

from __future__ import annotations

import pytest

from segtrain.sweep import jobs


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
    assert jobs.how_ended(-9) == "killed by SIGKILL (out of memory?)"
    assert jobs.how_ended(-15) == "killed by SIGTERM"
    assert jobs.how_ended(6) == "ended with exit code 6"
