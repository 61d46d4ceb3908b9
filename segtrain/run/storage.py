"""Atomic writes, which neither a kill nor a power cut leaves half done, and CheckpointErrors for writes that
the system refuses."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from segtrain.errors import CheckpointError
from segtrain.run.own import NO_LINK, NO_WAIT, check_own, parsed

TEMPORARY = re.compile(r"^\..+\.(\d+)-[0-9a-f]{6}\.tmp$")
"""Names of temporary files and folders; the group is the writer's process id."""


_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space or use another disk"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or use another disk"),
    errno.EFBIG: ("the file would be larger than this process may write", "raise the limit (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", "use another folder"),
    errno.EACCES: ("no permission", "use another folder or change its permissions"),
    errno.EEXIST: ("a file of that name is there", "give the name of a folder"),
    errno.ENOTDIR: ("a part of the path is a file", "give the name of a folder"),
    errno.EPERM: ("no permission", "use another folder or change its permissions"),
}


def reason_and_remedy(error: OSError) -> tuple[str, str]:
    """Why the system refused a write, and what to do about it, as parts of a message."""
    return _REASONS.get(error.errno, (error.strerror or str(error), "check the folder and its disk"))


def storage_error(error: OSError, path: Path | str, needed_bytes: int | None = None) -> CheckpointError:
    """The CheckpointError for a refused write: path, reason, bytes needed and free, remedy."""
    reason, remedy = reason_and_remedy(error)
    numbers = [] if needed_bytes is None else [f"needed {in_words(needed_bytes)}"]
    free = free_bytes(path)
    numbers += [] if free is None else [f"free {in_words(free)}"]
    return CheckpointError(
        f"cannot write {path}: {reason}{''.join('; ' + ', '.join(numbers) if numbers else '')}; {remedy}"
    )


@contextlib.contextmanager
def storage(path: Path | str, needed_bytes: int | None = None) -> Iterator[None]:
    """Turns an OSError of the block into a CheckpointError about `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, needed_bytes) from error


def free_bytes(path: Path | str) -> int | None:
    """Free bytes for this user on the disk of `path`, or of its nearest parent that exists; None if
    unknown."""
    path = Path(os.path.abspath(path))
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def in_words(num_bytes: int) -> str:
    """1234567 -> '1.2 MB'."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def probe(folder: Path | str, needed_bytes: int) -> None:
    """CheckpointError unless `needed_bytes` can be written into `folder` now. Leaves no file behind.

    The space is reserved for a moment, as the free space does not show a quota or a file-size limit.
    """
    path = temporary_name(Path(folder) / "probe")
    try:
        with storage(folder, needed_bytes), open(path, "xb") as file:
            file.write(b"segtrain")
            file.flush()
            free = free_bytes(folder)
            if free is not None and free < needed_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if needed_bytes > 0 and hasattr(os, "posix_fallocate"):
                _reserve(file.fileno(), needed_bytes)
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _reserve(descriptor: int, num_bytes: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError as error:
        # Some file systems cannot reserve space, however much there is.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV):
            raise


def temporary_name(path: Path) -> Path:
    """A name beside `path` with this process' id, which no reader takes for a finished file."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}.tmp")


def sync_folder(folder: Path | str) -> None:
    """fsync of a folder, so that renames in it survive a power cut."""
    if not hasattr(os, "O_DIRECTORY"):
        return  # such a system opens no folders
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Not every network file system syncs folders; then there is nothing more to do.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def write_atomic(path: Path | str, data: bytes) -> None:
    """Replaces the file by `data`: after a kill or a power cut it holds its old content or all of `data`."""
    path = Path(path)
    temporary = temporary_name(path)
    try:
        with storage(path, len(data)):
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def written(path: Path | str, needed_bytes: int | None = None) -> Iterator[BinaryIO]:
    """An open temporary file, renamed to `path` if the block succeeds and removed otherwise. Makes the
    folder.

    Unlike `write_atomic` it takes the content in pieces and does not fsync: a power cut may lose the file.
    """
    path = Path(path)
    temporary = temporary_name(path)
    try:
        with storage(path, needed_bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                yield file
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def json_bytes(value) -> bytes:
    """Indented UTF-8 JSON. NaN and infinity become null, as JSON has neither. TypeError for what is not plain
    data."""
    return (json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        "utf-8", "surrogatepass"
    )


def json_text(value) -> str:
    """Indented JSON as `json_bytes`, in ASCII, so that a terminal of any encoding takes it."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value


def write_json(path: Path | str, value) -> None:
    """`write_atomic` of the `json_bytes` of `value`."""
    write_atomic(path, json_bytes(value))


def append_line(path: Path | str, line: str, durable: bool = False) -> None:
    """`append_bytes` of one line of text."""
    append_bytes(path, line.rstrip("\n").encode("utf-8", "surrogatepass") + b"\n", durable)


def append_bytes(path: Path | str, data: bytes, durable: bool = False) -> None:
    """Appends to a file, which is made if it does not exist; if the disk refuses, the file is as before.

    durable: the data survive a power cut, which costs milliseconds.
    """
    check_own(Path(path))
    with storage(path, len(data)):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_WAIT | NO_LINK, 0o666)
        try:
            _append(descriptor, data)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _append(descriptor: int, data: bytes) -> None:
    before = os.fstat(descriptor).st_size
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        os.ftruncate(descriptor, before)
        raise


def cut_lines(path: Path | str, keep: int, due: str | None = None) -> int:
    """Removes from a file of JSON lines those whose "step" is above `keep`, and incomplete ones; returns how
    many. A missing file has none.

    due: prefix of keys; lines of step `keep` that hold such a key are removed too, as they will be logged
    again.
    """
    path = Path(path)
    check_own(path)
    if not path.exists():
        return 0
    with storage(path):
        lines = path.read_bytes().splitlines(keepends=True)
    again = None if due is None else f'"{due}'.encode()
    kept = [
        line
        for line in lines
        if line.endswith(b"\n") and _step_of(line) <= keep - (again is not None and again in line)
    ]
    if len(kept) < len(lines):
        write_atomic(path, b"".join(kept))
    return len(lines) - len(kept)


def _step_of(line: bytes) -> float:
    try:
        step = parsed(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
    return step if isinstance(step, (int, float)) else math.inf


def remove_leftovers(folder: Path | str) -> list[Path]:
    """Removes temporary files of dead processes, and of this one, from `folder`; returns their paths."""
    removed = []
    for path in sorted(Path(folder).glob(".*.tmp")):
        match = TEMPORARY.match(path.name)
        # This process holds the run's lock, so none of its own temporary files is in use.
        if match and (int(match[1]) == os.getpid() or not alive(int(match[1]))):
            remove(path)
            removed.append(path)
    return removed


def remove(path: Path) -> None:
    """Removes a file, a link or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()


def alive(pid: int) -> bool:
    """Whether a process with this id exists on this machine."""
    if os.name == "nt":
        # There os.kill ends the process, whatever the signal.
        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        return bool(handle and ctypes.windll.kernel32.CloseHandle(handle))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
