"""The lock of a run folder: one process at a time."""

from __future__ import annotations

import contextlib
import datetime
import errno
import getpass
import json
import os
import socket
import time
import weakref
from pathlib import Path

from segtrain.errors import ConfigError
from segtrain.run.own import NO_LINK, NO_WAIT, check_own, parsed
from segtrain.run.storage import alive, storage
from segtrain.text import notice

try:
    import fcntl
except ImportError:
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

LOCK = ".lock"
LOCKED_BYTE = 1 << 30
"""Offset of the locked byte on Windows, where other processes cannot read locked bytes."""


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


class Lock:
    """One process at a time in a run folder. The kernel drops the lock with the process, however it ends.

    `acquire` raises ConfigError at once if a living process holds it; a dead one's is taken over with a line
    on stderr.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.path = self.folder / LOCK
        self._descriptor: int | None = None

    def acquire(self) -> Lock:
        if not self.folder.is_dir():
            raise ConfigError(f"run folder {self.folder} does not exist")
        check_own(self.path)
        with storage(self.path):
            descriptor = self._open()
        try:
            self._take(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(self)
        return self

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | NO_WAIT | NO_LINK, 0o644)

    def _take(self, descriptor: int) -> None:
        locked = _flock(descriptor)
        owner = _read_owner(descriptor, wait_s=0.0 if locked else 0.5)
        if locked is False:
            raise ConfigError(self._taken(owner))
        if owner and not _same_machine(owner):
            raise ConfigError(
                f"{self._taken(owner)}, or if it ended (that machine cannot be asked from here) remove "
                f"{self.path}"
            )
        if owner and locked is None and alive(owner["pid"]) and owner["pid"] != os.getpid():
            raise ConfigError(self._taken(owner))
        if owner:
            notice(f"took over the lock of {_called(owner)}, which is gone")
        with storage(self.path):
            _write_owner(descriptor)

    def _taken(self, owner: dict | None) -> str:
        return (
            f"run folder {self.folder} is in use by {_called(owner)}; wait for it to end or choose "
            f"another name"
        )

    def release(self) -> None:
        if self._descriptor is None:
            return
        # Emptied, not removed: somebody may already wait with the same file open.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = None
        _held.discard(self)

    def _forget(self) -> None:
        """In a forked child: a loader's worker must not keep the lock of a parent that died."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Lock:
        return self if self._descriptor is not None else self.acquire()

    def __exit__(self, *_) -> None:
        self.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: [lock._forget() for lock in list(_held)])


def holder(folder: Path) -> dict | None:
    """Who holds the lock of a run folder: pid, host, user and since; {} for a holder without a name; None if
    nobody holds it. A dead process of this machine holds none."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | NO_WAIT | NO_LINK)
    except OSError:
        return None
    try:
        locked = _flock(descriptor)
        owner = _read_owner(descriptor, wait_s=0.0)
    finally:
        os.close(descriptor)
    if locked is False:
        return owner or {}
    if owner and not _same_machine(owner):
        return owner
    return owner if owner and locked is None and alive(owner["pid"]) else None


def _flock(descriptor: int) -> bool | None:
    """True: locked; False: another process has the lock; None: the file system or the operating system has no
    locks."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            return None
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return None
        raise
    return True


def boot_id() -> str:
    """Identifies the running kernel, which holds the locks: containers of one machine have different host
    names but share a kernel."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _same_machine(owner: dict) -> bool:
    return owner["host"] == socket.gethostname() or (owner["boot"] != "" and owner["boot"] == boot_id())


def _write_owner(descriptor: int) -> None:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = ""
    since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    here = {"host": socket.gethostname(), "boot": boot_id()}
    owner = {"pid": os.getpid(), "user": user, "since": since, **here}
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(owner).encode())
    os.fsync(descriptor)


def _read_owner(descriptor: int, wait_s: float) -> dict | None:
    """The holder named in the lock file; None if it names none. A holder that has just locked gets `wait_s`
    seconds to write its name."""
    end = time.monotonic() + wait_s
    while True:
        with contextlib.suppress(ValueError, AttributeError, OSError, TypeError, LookupError, OverflowError):
            os.lseek(descriptor, 0, os.SEEK_SET)
            read = parsed(os.read(descriptor, 4096))
            words = {key: str(read.get(key) or "")[:200] for key in ("host", "user", "since", "boot")}
            return {"pid": int(read["pid"]), **words}
        if time.monotonic() >= end:
            return None
        time.sleep(0.02)


def _called(owner: dict | None) -> str:
    if owner is None:
        return "another process"
    user = f" of {owner['user']}" if owner["user"] else ""
    return f"process {owner['pid']}{user} on {owner['host']} since {owner['since']}"
