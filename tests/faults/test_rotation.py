"""Commands that read a run while its training saves often and keeps one checkpoint: each takes a whole one."""

import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from segtrain.checkpoint.reading import read
from segtrain.cli.main import main

QUICK = ("loader.workers=0", "evaluate.workers=0", "device=cpu", "threads=1")
DATA = ("data.size=48", "data.num_train=4", "data.num_val=2", "augmentation.warp.size=48")
TRAIN = ("train", "model=unet", "model.widths=[4,8]", *DATA, *QUICK, "loader.batch_size=2", "trainer.steps=1")

ROTATE = """
import sys, time
from pathlib import Path
from segtrain import checkpoint
run, seconds = Path(sys.argv[1]), float(sys.argv[2])
before = checkpoint.find(run, "last")
weights, description = checkpoint.load_weights(before), checkpoint.describe(before)
state, end, step = checkpoint.load_state(before), time.monotonic() + seconds, int(before.name)
while time.monotonic() < end:
    step += 1
    for tensor in weights.values():
        if tensor.is_floating_point():
            tensor.fill_(step / 2**20)
    checkpoint.save(run, step, weights, state, {**description, "step": step})
    checkpoint.link(run, "last", step)
    checkpoint.link(run, "best", step)
    checkpoint.prune(run, 1)
    if step == int(before.name) + 1:
        print("replaced", flush=True)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """outputs/run, whose checkpoints a process replaces for as long as the tests take."""
    folder = tmp_path_factory.mktemp("rotation")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*TRAIN, "name=run"]) == 0
    (folder / "photos").mkdir()
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(folder / "photos" / "a.png")
    writer = subprocess.Popen(
        [sys.executable, "-c", ROTATE, str(folder / "outputs" / "run"), "120"], stdout=subprocess.PIPE
    )
    assert writer.stdout.readline() == b"replaced\n"
    yield folder / "outputs" / "run"
    assert writer.poll() is None, "the checkpoints no longer rotated"
    writer.kill()
    writer.wait()
    writer.stdout.close()


@pytest.mark.parametrize("which", ["best", "last"])
@pytest.mark.slow
def test_what_is_read_is_of_one_checkpoint(run, which):
    steps, end = [], time.monotonic() + 3
    while time.monotonic() < end:
        found = read(run, which)
        assert str(found.description["step"]) == found.path.name
        assert all(
            tensor.eq(int(found.path.name) / 2**20).all() for tensor in found.weights.values() if tensor.ndim
        )
        steps.append(int(found.path.name))
    assert steps == sorted(steps) and len(set(steps)) > 10


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "run=outputs/run", *QUICK[1:]),
        ("evaluate", "run=outputs/run", "checkpoint=last", *QUICK[1:]),
        ("predict", "run=outputs/run", "input=photos", "output=masks", *QUICK[2:]),
        ("compare", "runs=[outputs/run,./outputs/run]", "output=compared", *QUICK[1:]),
        (*TRAIN, "init=outputs/run", "dry_run=true"),
    ],
    ids=lambda words: f"{words[0]} {next((word for word in words if '=last' in word), '')}",
)
def test_a_command_beside_the_training_ends_well(run, monkeypatch, words):
    monkeypatch.chdir(run.parents[1])
    assert [main(list(words)) for _ in range(6)] == [0] * 6


def test_a_step_that_went_is_named(run, monkeypatch, capsys):
    monkeypatch.chdir(run.parents[1])
    assert main(["evaluate", "run=outputs/run", "checkpoint=1", *QUICK[1:]]) == 2
    assert "checkpoint=1: outputs/run/checkpoints has no such step; there are " in capsys.readouterr().err
