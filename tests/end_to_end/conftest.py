"""The installed program, run as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SEGTRAIN = Path(sys.executable).with_name("segtrain")

TINY = (
    "data.size=48", "data.num_train=12", "data.num_val=3", "data.objects=3", "model.widths=[4,8]", "augmentation=light",
    "loader.batch_size=4", "trainer.log_every=1", "evaluate.workers=0", "device=cpu", "threads=1",
)  # fmt: skip
"""A run of seconds on the built-in data."""


def run(*arguments, cwd, limit_s=280):
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(
        [SEGTRAIN, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=limit_s
    )


def start(*arguments, cwd):
    return subprocess.Popen(
        [SEGTRAIN, *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(folder to run commands in, name of a run there that trained 6 steps)."""
    place = tmp_path_factory.mktemp("user")
    ended = run("train", *TINY, "trainer.steps=6", "trainer.evaluate_every=3", "name=first", cwd=place)
    assert ended.returncode == 0, ended.stderr
    return place
