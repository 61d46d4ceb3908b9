"""The benchmark: its statistics by hand, turns in the right order, a run of its cheap rows."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def paired():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import benchmarks.paired

        yield benchmarks.paired


def run(*words, timeout=250):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, SCRIPTS / "bench.py", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        check=False,
    )


def test_the_interval_of_a_median(paired):
    # Known ranks for 95 %: the 1st and 6th of 6, the 2nd and 9th of 10, the 6th and 15th of 20.
    for count, first in ((6, 1), (10, 2), (20, 6)):
        middle, low, high = paired.median_interval(
            np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
        )
        assert (low, high) == (first, count + 1 - first) and middle == (count + 1) / 2
    assert paired.median_interval(np.array([4.0])) == (4.0, 4.0, 4.0)


def test_the_interval_holds_the_median_as_often_as_it_says(paired):
    rng = np.random.default_rng(1)
    held = [
        low <= 1 <= high
        for _, low, high in (paired.median_interval(rng.lognormal(0, 1, 15)) for _ in range(2000))
    ]
    assert np.mean(held) >= 0.95


def test_a_goal_needs_the_whole_interval(paired):
    result = paired.Result("peer 1.0", [1.0] * 6, [30.0, 31.0, 32.0, 33.0, 34.0, 26.0], paired.faster(25))
    assert result.judged() == (31.5, 26.0, 34.0) and result.reached()
    assert not paired.Result("peer 1.0", [1.0] * 6, [30.0] * 5 + [24.0], paired.faster(25)).reached()
    assert not paired.Result("peer 1.0", [1.0] * 5 + [1.1], [1.0] * 6, paired.share(1.05)).reached()


def test_turns_pause_the_loop_and_change_the_order(paired):
    events = []
    batches = (events.append("batch") or i for i in itertools.count())
    turns = paired.Turns(batches, lambda: events.append("peer"), steps=2, pairs=2, skipped=1)
    taken = []
    with pytest.raises(paired.Enough):
        taken.extend(turns)
    assert events == ["batch"] * 2 + ["peer"] * 4 + ["batch"] * 4 + ["peer"] * 2
    assert len(turns.ours) == len(turns.theirs) == 2


def test_unknown_row_and_list():
    wrong = run("cuonts")
    assert wrong.returncode == 2 and "cuonts is not a row; rows are counts," in wrong.stderr
    listed = run("--list")
    assert listed.returncode == 0 and len(listed.stdout.splitlines()) == 27


@pytest.mark.slow
def test_cheap_rows(tmp_path):
    ended = run("--quick", "counts", "counts-masked", "loop", "help", "--json", str(tmp_path / "bench.json"))
    assert ended.returncode == 0, ended.stderr
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert list(rows) == ["counts", "counts-masked", "loop", "help"]
    assert all(row["low"] <= row["median"] <= row["high"] and row["peer"] for row in rows.values())
    assert rows["counts"]["median"] > 3 and "torchmetrics" in ended.stdout


@pytest.mark.slow
def test_the_rows_of_the_loss():
    ended = run("--quick", "loss-19", "loss-memory-150-8", timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert "x the time" in ended.stdout and "x the memory" in ended.stdout and "left out" not in ended.stdout


@pytest.mark.slow
def test_the_rows_with_real_networks():
    ended = run("--quick", "loop-share", "step", timeout=1200)
    assert ended.returncode == 0, ended.stderr
    assert "plain loop" in ended.stdout


@pytest.mark.slow
def test_the_rows_of_whole_images():
    ended = run("--quick", "tiles", "argmax", "scoring", "predicting", timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert "left out" not in ended.stdout and "plain loop" in ended.stdout


@pytest.mark.parametrize(
    ("error", "said"),
    [(RuntimeError("broken"), "failed: RuntimeError: broken"), (KeyboardInterrupt(), "failed: inter")],
)
def test_a_row_that_fails_leaves_the_others(error, said, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench
    from benchmarks.paired import Left

    def failing(quick):
        raise error

    def left(quick):
        raise Left("no peer")

    monkeypatch.setattr(bench, "ROWS", {"a": bench.Row("", left), "b": bench.Row("", failing)})
    assert bench.main(["a", "b"]) == 1
    out = capsys.readouterr().out
    assert "a: left out: no peer" in out and f"b: {said}" in out
