"""run.json: command line, versions, git commit, and how the run ended."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from segtrain.errors import SegtrainError
from segtrain.run.layout import CONFIG, RECORD
from segtrain.run.own import parsed, read_own
from segtrain.run.resources import exit_code_of, known_error
from segtrain.run.storage import write_json

PACKAGES = (
    "segtrain",
    "torch",
    "torchvision",
    "hydra-core",
    "omegaconf",
    "timm",
    "albumentations",
    "numpy",
    "opencv-python-headless",
)

MAX_RECORD = 16 << 20
KINDS = {
    "exit_code": (int, type(None)),
    "seconds": (int, float, type(None)),
    "scores": (dict, type(None)),
    "earlier": list,
    "directory": str,
}
"""Types of the values that are read again."""


class Record:
    """A context that writes run.json at its start, and at its end the exit code that the process is about to
    have, the error's message and `scores`, which the block sets."""

    def __init__(self, folder: Path, config: Mapping, words: list[str]):
        self.path = folder / RECORD
        self.scores: dict = {}
        self._start = time.monotonic()
        earlier = read_record(folder)
        self._config = folder / CONFIG
        self._before = _inode(self._config)
        # That of the paths in config.yaml, until that is written anew.
        directory = os.getcwd() if self._before is None else earlier.get("directory", os.getcwd())
        self.content = {
            "command": words,
            "started": _now(),
            "ended": None,
            "seconds": None,
            "exit_code": None,
            "error": None,
            "scores": None,
            "seed": config["seed"],
            "host": socket.gethostname(),
            "directory": directory,
            "python": platform.python_version(),
            "versions": _versions(),
            "git": git_commit(),
            "earlier": [*earlier.pop("earlier", []), earlier] if earlier else [],
        }

    def __enter__(self) -> Record:
        write_json(self.path, self.content)
        return self

    def __exit__(self, _kind, error, _trace) -> None:
        said = None if error is None else str(known_error(error) or error)
        self.content.update(ended=_now(), seconds=round(time.monotonic() - self._start, 1))
        if _inode(self._config) != self._before:
            self.content.update(directory=os.getcwd())
        self.content.update(exit_code=exit_code_of(error), error=said, scores=self.scores or None)
        # A full disk must not hide the error of the block.
        with contextlib.suppress(SegtrainError) if error is not None else contextlib.nullcontext():
            write_json(self.path, self.content)


def _inode(path: Path) -> int | None:
    """Another one for each file that is written atomically; None if there is none."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_ino
    return None


def read_record(folder: Path) -> dict:
    """The content of run.json; {} if the file is missing or unreadable. Values of a wrong type are
    left out."""
    with contextlib.suppress(OSError, ValueError):
        record = parsed(read_own(folder / RECORD, MAX_RECORD))
        if isinstance(record, dict):
            return {key: one for key, one in record.items() if _is_like(key, one)}
    return {}


def _is_like(key: str, value) -> bool:
    if key == "scores" and isinstance(value, dict):
        plain = all(isinstance(one, (str, int, float, type(None))) for one in value.values())
        return plain and isinstance(value.get(value.get("score"), 0), (int, float, type(None)))
    return isinstance(value, KINDS.get(key, object)) and not (key == "exit_code" and isinstance(value, bool))


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def git_commit() -> dict | None:
    """Commit of the git repository that contains the current directory, and whether tracked files differ from
    it; None outside of a repository."""

    def git(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=False)

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit = git("rev-parse", "HEAD")
        if commit.returncode == 0:
            return {
                "commit": commit.stdout.strip(),
                "changed": git("diff-index", "--quiet", "HEAD", "--").returncode != 0,
            }
    return None
