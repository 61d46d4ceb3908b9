"""Requeues the Slurm job of a run that a signal has stopped; the run resumes when the job starts again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator

from segtrain.errors import ConfigError, Interrupted
from segtrain.run.rank import launched
from segtrain.text import notice, say

JOB = "SLURM_JOB_ID"
ARRAY, TASK = "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"
SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU") if hasattr(signal, name)
]
"""Signals by which Slurm announces the end of a job. SIGINT is that of a person, who wants the end."""
LIMIT_S = 10
"""Seconds that scontrol may take: torchrun kills its ranks 30 s after a signal."""


@contextlib.contextmanager
def requeued(wanted: str | None, resumable: bool) -> Iterator[None]:
    """A context that, if one of SIGNALS stops the run in it, puts the Slurm job of this process back into the
    queue. errors.Interrupted is raised again; only rank 0 calls scontrol.

    wanted: the value of trainer.requeue; None: the context does nothing. resumable: whether the same command
    resumes the run. ConfigError on entry if it does not, or if SLURM_JOB_ID is not set.
    """
    if wanted is None:
        yield
        return
    job = os.environ.get(JOB)
    if not job:
        raise ConfigError(
            f"trainer.requeue={wanted} needs a Slurm job, and {JOB} is not set; start the run by sbatch, or "
            "set trainer.requeue=null"
        )
    array, task = os.environ.get(ARRAY), os.environ.get(TASK)
    name = JOB
    if array and task:  # one task of an array has the array's own number, which stands for all tasks
        name, job = f"{ARRAY}_{TASK}", f"{array}_{task}"
    if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        raise ConfigError(f"{name} is {job!r}, which is no number of a Slurm job; set trainer.requeue=null")
    if not resumable:
        raise ConfigError(
            f"trainer.requeue={wanted} starts the same command again, which would begin another run; add "
            "name=NAME resume=auto"
        )
    try:
        yield
    except Interrupted as error:
        if error.exit_code - 128 in SIGNALS and launched().rank == 0:
            _requeue(job)
        raise


def _requeue(job: str) -> None:
    try:
        ended = subprocess.run(
            ["scontrol", "requeue", job],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
        reason = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
        failed = ended.returncode != 0
    except (OSError, subprocess.SubprocessError) as error:
        failed, reason = True, str(error)
    if failed:
        notice(
            f"the Slurm job {job} could not be requeued ({reason:.200}); submit it again to resume the run"
        )
    else:
        say(f"requeued the Slurm job {job}: the run resumes when it starts again")
