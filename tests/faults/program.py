"""The installed program as a shell starts it, for faults that only a process of its own can meet."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("segtrain")

SMALL = (
    *("data=shapes", "data.size=48", "data.num_train=6", "data.num_val=2", "device=cpu", "model=unet"),
    *("model.widths=[4,8]", "augmentation=none", "loader.batch_size=2", "loader.workers=0"),
    *("evaluate.workers=0", "trainer.steps=4"),
)
"""A training of a second."""


def start(*words, cwd, shell='exec "$0" "$@"', **environment):
    """The program with its streams read. shell: how it is started, such as `ulimit -n 64; exec "$0" "$@"`."""
    return subprocess.Popen(
        ["bash", "-c", shell, PROGRAM, *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
    )


def run(*words, cwd, limit_s=60, **how):
    """How the program ended: the CompletedProcess."""
    process = start(*words, cwd=cwd, **how)
    try:
        out, err = process.communicate(timeout=limit_s)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def one_line(ended, code):
    """The error of a program that ended with `code` and one line on stderr, without a traceback."""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("segtrain: error: ")]
    assert ended.returncode == code and len(lines) == 1, (ended.returncode, ended.stderr)
    assert "Traceback" not in ended.stderr + ended.stdout and "fault of segtrain" not in lines[0]
    return lines[0]
