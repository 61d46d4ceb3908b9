"""Programs started by torchrun in several processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")


def start(*words, cwd, num_ranks=2, options=(), log=subprocess.PIPE):
    """`torchrun … -m segtrain WORDS`, or of a script if the first word is one; stdout and stderr in one."""
    program = words if str(words[0]).endswith(".py") else ("-m", "segtrain", *words)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    return subprocess.Popen(
        [*TORCHRUN, f"--nproc-per-node={num_ranks}", *options, *map(str, program)],
        cwd=cwd,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(*words, limit_s=120, **how):
    """(exit code, all that was printed)."""
    process = start(*words, **how)
    try:
        out, _ = process.communicate(timeout=limit_s)
    finally:
        end(process)
    return process.returncode, out


def end(process) -> None:
    """Kills torchrun and its ranks."""
    for pid in [*ranks_of(process).values(), process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def ranks_of(process) -> dict[int, int]:
    """{rank: process id} of the living ranks."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            words = (entry / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            continue
        rank = [word[5:] for word in words if word.startswith(b"RANK=")]
        if parent == process.pid and rank:
            found[int(rank[0])] = int(entry.name)
    return found


def wait_for(condition, limit_s=60):
    """What `condition()` returns once it is true."""
    end_s = time.monotonic() + limit_s
    while not (result := condition()):
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.05)
    return result
