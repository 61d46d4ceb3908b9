"""Checks the files of a run folder: each must be a regular file or a folder, never a link, pipe or device.

Somebody may have put a pipe there, which would be waited for, or a link, which would be written through.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from segtrain.errors import CheckpointError

KINDS = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file", stat.S_IFIFO: "a pipe"}
# What a system does not know, it is not asked for.
NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def check_own(path: Path, folder: bool = False, of: str = "run") -> None:
    """CheckpointError, naming what is there, unless `path` is free or a regular file (a folder).

    of: what it belongs to, for the message: a run or an output.
    """
    try:
        mode = stat.S_IFMT(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return  # that a part of the path is a file, the writing says
    except OSError as error:
        raise CheckpointError(f"{path} cannot be looked at: {error.strerror}") from error
    wanted = stat.S_IFDIR if folder else stat.S_IFREG
    if mode != wanted:
        raise CheckpointError(
            f"{path} is {KINDS.get(mode, 'a device')}, where the {of} has {KINDS[wanted]} of its own; move "
            f"it away or choose another {of}"
        )


def check_below(output: Path, folder: Path) -> None:
    """CheckpointError where `folder`, or one between it and `output`, is a link or no folder.

    `output` is what the user chose, and may be a link itself.
    """
    for part in (*reversed(folder.relative_to(output).parents), folder.relative_to(output)):
        if part != Path():
            check_own(output / part, folder=True, of="output")


def stat_of_file(path: Path) -> os.stat_result:
    """The stat of a file; CheckpointError unless it is a regular file (opening a pipe would block)."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path} is not a regular file")
    return found


def read_own(path: Path, at_most: int) -> bytes:
    """The first `at_most` bytes of a regular file; OSError for anything else, without blocking."""
    descriptor = os.open(path, os.O_RDONLY | NO_WAIT)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(None, "not a regular file", str(path))
        return file.read(at_most)


def parsed(data: bytes | str):
    """Parses JSON; ValueError for invalid text, also for text nested too deeply."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
