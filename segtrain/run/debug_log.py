"""Unexpected exceptions, which are bugs of segtrain: one line for the user, the traceback in debug.log."""

from __future__ import annotations

import contextlib
import datetime
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from segtrain.errors import CheckpointError, SegtrainError
from segtrain.run.layout import DEBUG_LOG
from segtrain.run.own import check_own
from segtrain.run.resources import known_errors


class Bug(SegtrainError):
    """A bug of segtrain; the traceback is in a file."""


@contextlib.contextmanager
def debug_log(folder: Path | None) -> Iterator[None]:
    """Turns an exception of the block into its `known_error`, or else into a Bug, whose traceback is appended
    to debug.log in `folder` (None: written to a new temporary file)."""
    try:
        with known_errors():
            yield
    except (SegtrainError, BrokenPipeError):
        raise
    except Exception as error:
        path = _write_traceback(folder)
        summary = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        raise Bug(
            f"this is a fault of segtrain ({summary}); the traceback is in {path}, please report it"
        ) from error


def _write_traceback(folder: Path | None) -> Path:
    now = datetime.datetime.now().astimezone().isoformat()
    text = f"{now}\n{' '.join(sys.argv)}\n{traceback.format_exc()}\n"
    if folder is not None:
        with contextlib.suppress(OSError, CheckpointError):
            check_own(folder / DEBUG_LOG)
            with open(folder / DEBUG_LOG, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return folder / DEBUG_LOG
    descriptor, path = tempfile.mkstemp(prefix="segtrain-", suffix=".debug.log")
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(path)
