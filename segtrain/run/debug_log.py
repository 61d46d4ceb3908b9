"""An exception that no user can have caused: one line for the user, the traceback in a file."""

from __future__ import annotations

import contextlib
import datetime
import errno
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from segtrain.errors import CheckpointError, ConfigError, SegtrainError
from segtrain.run.layout import DEBUG_LOG
from segtrain.run.own import check_own


class Bug(SegtrainError):
    """Something that no user can have caused; the traceback is in a file."""


@contextlib.contextmanager
def debug_log(folder: Path | None) -> Iterator[None]:
    """Turns an exception that is our own fault into one line; its traceback goes to debug.log in `folder`
    (None: a new file)."""
    try:
        yield
    except SegtrainError:
        raise
    except (MemoryError, BrokenPipeError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise ConfigError(
                f"{error.filename}: the name is too long; allowed: 255 bytes a folder"
            ) from error
        # torch's classes for it are not imported here: the CPU's allocator has none, the GPU's is called
        # OutOfMemoryError.
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
            raise MemoryError from error
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
