"""How long the command line takes to answer."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.paired import Left, Result, seconds, version

HYDRA_APP = """
import hydra

@hydra.main(version_base=None, config_path=None)
def main(config):
    print(config)

main()
"""


def help_text(quick: bool) -> Result:
    """`segtrain --help` against `--help` of the smallest Hydra application; CPU seconds of the process, user
    and system."""
    command = Path(sys.executable).with_name("segtrain")
    ours = [str(command)] if command.exists() else [sys.executable, "-m", "segtrain"]
    peer = f"smallest app of {version('hydra-core')}"
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory(prefix="segtrain-bench-") as folder:
        app = Path(folder) / "app.py"
        app.write_text(HYDRA_APP)
        commands = {"ours": [*ours, "--help"], "theirs": [sys.executable, str(app), "--help"]}
        for pair in range(-1, 3 if quick else 11):
            for side in ("ours", "theirs") if pair % 2 else ("theirs", "ours"):
                took = cpu_seconds(commands[side], folder)
                times[side] += [took] if pair >= 0 else []
    return Result(peer, times["ours"], times["theirs"], seconds(0.15))


def cpu_seconds(command: list[str], folder: str) -> float:
    """User and system time of a process and its children."""
    # -m segtrain has to find a package that is not installed.
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Left(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime
