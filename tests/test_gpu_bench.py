"""The benchmark of a GPU: what it counts by hand, its judgement, and its tiny form on a CPU."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

SCRIPTS = Path(__file__).parents[1] / "scripts"
CPU = torch.device("cpu")


@pytest.fixture
def gpu_bench(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import gpu_bench

    return gpu_bench


def counted(gpu_bench, call):
    from benchmarks.roofs import Work

    with Work(CPU) as work:
        call()
    return work


def test_convolutions_count_as_operations_and_all_else_as_bytes(gpu_bench):
    x, layer = torch.ones(2, 3, 8, 8), nn.Conv2d(3, 5, 3, padding=1, bias=False)
    work = counted(gpu_bench, lambda: F.relu(layer(x)))
    assert work.flops.total() == 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)
    assert work.bytes.total() == 4 * 2 * (2 * 5 * 8 * 8)  # the ReLU, read and written
    work = counted(gpu_bench, lambda: layer(x).sum().backward())
    # The gradient of the weights takes as many as the forward pass; the images need none.
    assert work.flops.total() == 2 * 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)


@pytest.mark.parametrize(
    ("call", "floats"),
    [
        (lambda a, b: a.view(8, 2).transpose(0, 1).detach(), 0),
        (lambda a, b: torch.empty_like(a), 0),
        (lambda a, b: a + b, 3 * 16),
        (lambda a, b: a.add_(b), 3 * 16),
        (lambda a, b: a[:1, :1].expand(4, 4) * b, 2 * 16 + 16),  # no more than the memory behind it
        (lambda a, b: torch._foreach_add_([a, b], 1.0), 4 * 16),
        (lambda a, b: a.half(), 16 + 8),
    ],
)
def test_bytes_of_operations(gpu_bench, call, floats):
    a, b = torch.ones(4, 4), torch.ones(4, 4)
    assert counted(gpu_bench, lambda: call(a, b)).bytes.total() == 4 * floats


def case(gpu_bench, *words):
    return gpu_bench.case_of(gpu_bench.parsed(["--device", "cpu", *words]))


def test_shares_of_the_roof_and_goals(gpu_bench):
    found = gpu_bench.Findings(case(gpu_bench, "--batch", "4"))
    found.unfused = {"plain loop": 0.6, "eager": 9.0}
    sides = {"plain loop": [2.0] * 3, "eager": [1.0, 1.2, 0.8], "eager, channels_last": [2.0] * 3}
    found.sides = {**sides, "compiled, channels_last": "failed: no compiler"}
    lines, numbers = gpu_bench.step(found)
    assert numbers["shares"] == pytest.approx({"plain loop": 0.3, "eager": 0.6, "eager, channels_last": 0.3})
    assert list(numbers["goals"].values()) == [True, False]
    (eager,) = (line for line in lines if line.startswith("eager  "))
    assert "4 [3.333, 5]" in eager and "60.0%" in eager and "2.00x" in eager
    assert any("failed: no compiler" in line for line in lines)
    assert found.fastest() == ("eager", 4.0)
    found.sides["eager"], found.sides["compiled, channels_last"] = [1.01] * 3, [0.5] * 3
    assert list(gpu_bench.step(found)[1]["goals"].values()) == [False, True]


def test_seconds_at_the_roofs(gpu_bench):
    from benchmarks.roofs import Roofs, Work

    work = Work(CPU)
    work.flops["convolution"], work.bytes["relu"] = 300, 50
    assert work.seconds(Roofs(flops=100.0, bytes=25.0)) == (3.0, 2.0)


def test_out_of_memory_says_which_batch_fits(gpu_bench, monkeypatch, capsys):
    def side(case):
        def step():
            if case.batch > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")

        return step

    monkeypatch.setattr(gpu_bench.gpu_step, "SIDES", {"plain loop": side, "eager": side})
    found = gpu_bench.Findings(case(gpu_bench, "--batch", "16"))
    found.unfused = {"plain loop": math.inf}
    numbers, whole = gpu_bench.measured(["step"], found)
    assert not whole and numbers["step"] == {
        "failed": "out of memory with 16 images of 64x96; 2 fit: --batch 2"
    }
    assert "2 fit: --batch 2" in capsys.readouterr().out


def test_a_row_that_fails_leaves_the_others(gpu_bench, monkeypatch, capsys):
    def failing(found):
        raise ValueError("broken")

    monkeypatch.setattr(gpu_bench, "ROWS", {"a": failing, "b": lambda found: (["ran"], {})})
    assert gpu_bench.main(["--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert "failed: ValueError: broken" in out and "ran" in out
    assert out.count("these numbers mean nothing") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stpe"], "stpe is not a row; rows are roofs, unfused, step, memory, data"),
        (["--size", "512"], "'512' is no size such as 512x1024"),
        (["--batch", "0"], "'0' is no whole number from 1"),
        (["--device", "mps"], "--device mps: cuda, cuda:1 … or cpu"),
    ],
)
def test_words_that_mean_nothing(gpu_bench, words, said, capsys):
    with pytest.raises(SystemExit) as caught:
        gpu_bench.main(words)
    assert caught.value.code == 2 and said in capsys.readouterr().err


def test_without_a_gpu_the_way_to_try_it_is_told(gpu_bench, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu_bench.main([])
    assert "there is no CUDA GPU here; --device cpu tries the script" in capsys.readouterr().err
    assert gpu_bench.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


@pytest.mark.slow
def test_the_tiny_form_runs_every_row(tmp_path):
    pytest.importorskip("skimage")
    ended = subprocess.run(
        [sys.executable, SCRIPTS / "gpu_bench.py", "--device", "cpu", "--json", tmp_path / "found.json"],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert ended.stdout.count("these numbers mean nothing") == 2 and "failed" not in ended.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["means_nothing"] and list(found["rows"]) == ["roofs", "unfused", "step", "memory", "data"]
    assert all(len(seconds) == 2 for seconds in found["rows"]["step"]["seconds"].values())
    plain, own = found["rows"]["unfused"].values()
    assert plain["flops"] == own["flops"] > 1e9  # one network on both sides
    assert 0 <= found["rows"]["data"]["waiting"] <= 1 and found["rows"]["data"]["loader_images_per_s"] > 0
