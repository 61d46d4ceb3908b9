"""The folder of a run: made, locked and written so that no kill and no power cut leaves half a file.

Standard library only: signals are caught and the lock is taken before torch is imported, which takes seconds.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import getpass
import json
import math
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from segtrain.errors import CheckpointError, ConfigError, Interrupted, printable

LOCK = ".lock"
TEMPORARY = re.compile(r"^\..+\.(\d+)-[0-9a-f]{6}\.tmp$")
"""Names of files and folders that are being written; the group is the writer's process id."""


# --- making a folder


def create(outputs: Path | str, name: str | None = None) -> Path:
    """A new, empty run folder: outputs/NAME, or outputs/DATE/TIME-RANDOM so that two runs of one second do
    not meet.

    Raises ConfigError for a bad or taken name, CheckpointError if the storage refuses.
    """
    outputs = Path(outputs)
    if name is not None:
        check_name(name)
        folder = outputs / name
        if not _mkdir(folder):
            raise ConfigError(
                f"name={name}: {folder} exists already; choose another name, or go on with that run by "
                f"resume={folder}"
            )
        return folder
    while True:
        now = datetime.datetime.now()
        folder = outputs / now.strftime("%Y-%m-%d") / f"{now:%H-%M-%S}-{secrets.token_hex(3)}"
        if _mkdir(folder):
            return folder


def check_name(name: str) -> None:
    """ConfigError unless `name` can be one folder inside outputs/ that no run without a name would share."""
    allowed = (
        "allowed: one folder name of printable characters without / and \\, not beginning with a "
        "dot, at most 200 bytes"
    )
    bad = not name.strip() or name.startswith(".") or not name.isprintable() or any(c in name for c in "/\\")
    if bad or len(name.encode(errors="replace")) > 200:
        raise ConfigError(f"name is {name!r}; {allowed}")
    if re.fullmatch(r"\d{4}-\d\d-\d\d", name):
        raise ConfigError(
            f"name is {name!r}, which is where runs of that day without a name go; choose another name"
        )


def _mkdir(folder: Path) -> bool:
    """Makes `folder` and what is missing above it, durably; False if it was there already."""
    with storage(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            return False
        for above in (folder.parent, folder.parent.parent):
            sync_folder(above)
    return True


# --- storage that refuses


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


def storage_error(error: OSError, path: Path | str, needed_bytes: int | None = None) -> CheckpointError:
    """One line for a write that the system refused: why, where, what was needed, what is free, what to do."""
    reason, remedy = _REASONS.get(
        error.errno, (error.strerror or str(error), "check the folder and its disk")
    )
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
    """Bytes that this user may still write on the disk of `path` (or of the nearest folder above that
    exists)."""
    path = Path(os.path.abspath(path))
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            found = os.statvfs(folder)
            return found.f_bavail * found.f_frsize
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
    """CheckpointError unless `needed_bytes` can be written into `folder` now. Leaves nothing behind.

    The space is really reserved for a moment: a quota or a file-size limit does not show in the free space.
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
        # Some file systems cannot reserve; that says nothing about the space.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV):
            raise


# --- writing


def temporary_name(path: Path) -> Path:
    """Beside `path`, a name that says who writes there and that no reader takes for finished."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}.tmp")


def sync_folder(folder: Path | str) -> None:
    """Makes the names in `folder` survive a power cut."""
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
    """`path` holds either what it held or all of `data`, whenever the process is killed or the power
    fails."""
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


def json_bytes(value) -> bytes:
    """Indented UTF-8 JSON. Numbers that are not finite become null: JSON has none. Anything but plain values
    is a TypeError."""
    return (json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        "utf-8", "surrogatepass"
    )


def _finite(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value


def write_json(path: Path | str, value) -> None:
    """`json_bytes` of `value`, written at once or not at all."""
    write_atomic(path, json_bytes(value))


def append_line(path: Path | str, line: str, durable: bool = False) -> None:
    """Adds one line; if the disk refuses, the file is as it was. durable: it survives a power cut, which
    costs milliseconds."""
    data = line.rstrip("\n").encode("utf-8", "surrogatepass") + b"\n"
    with storage(path, len(data)):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
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
    """Drops from a file of JSON lines those whose "step" is over `keep`, and torn ones; returns how many. No
    file: 0.

    due: of step `keep`, a line with a key that begins so is to come again and goes too.
    """
    path = Path(path)
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
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
    return step if isinstance(step, (int, float)) else math.inf


def remove_leftovers(folder: Path | str) -> list[Path]:
    """Removes what writers that were killed left half written in `folder`; what a living process writes
    stays."""
    removed = []
    for path in sorted(Path(folder).iterdir()):
        match = TEMPORARY.match(path.name)
        # The lock of the run is ours, so that nothing else of this process is being written now.
        if match and (int(match[1]) == os.getpid() or not alive(int(match[1]))):
            remove(path)
            removed.append(path)
    return removed


def remove(path: Path) -> None:
    """Removes a file, a link or a folder; that it is gone already is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()


def alive(pid: int) -> bool:
    """Whether a process of that id runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


# --- one process per run


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
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)

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
            print(
                printable(f"segtrain: took over the lock of {_called(owner)}, which is gone"),
                file=sys.stderr,
                flush=True,
            )
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


os.register_at_fork(after_in_child=lambda: [lock._forget() for lock in list(_held)])


def _flock(descriptor: int) -> bool | None:
    """True: locked, False: somebody else has it, None: this file system knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return None
        raise
    return True


def _boot() -> str:
    """Names the running kernel: containers of one machine have several host names and one kernel that keeps
    the locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _same_machine(owner: dict) -> bool:
    return owner["host"] == socket.gethostname() or (owner["boot"] != "" and owner["boot"] == _boot())


def _write_owner(descriptor: int) -> None:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "user": user, "since": since, "boot": _boot()}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)
    os.fsync(descriptor)


def _read_owner(descriptor: int, wait_s: float) -> dict | None:
    """Who wrote the lock; None if nobody did. A holder that has just locked gets `wait_s` to write its
    name."""
    end = time.monotonic() + wait_s
    while True:
        with contextlib.suppress(ValueError, AttributeError, OSError, TypeError):
            read = json.loads(os.pread(descriptor, 4096, 0))
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


# --- signals


class Stop:
    """Whether somebody asked the run to end. `Stop().install()` watches SIGTERM and SIGINT; `Stop()` alone
    never asks.

    The first signal is only noted: the loop ends the step, saves, and calls `raise_if_requested`. A second
    SIGINT ends this process and its children at once with 130.

    at_once: true while nothing has begun that could be lost; a signal then raises errors.Interrupted wherever
    the program is.
    """

    def __init__(self):
        self.requested: int | None = None
        self.at_once = False
        self._previous: dict[int, object] = {}
        self._pipe: tuple[int, int] | None = None

    def install(self) -> Stop:
        """Watches from now on; in the main thread only, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread() or self._previous:
            return self
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        # A handler waits until the main thread comes out of a long operation; a thread that reads this pipe
        # does not.
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(self._pipe[0],), name="stop", daemon=True).start()
        _installed.add(self)
        return self

    def restore(self) -> None:
        """Gives the signals back to whom they belonged."""
        while self._previous:
            number, previous = self._previous.popitem()
            signal.signal(number, previous)
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            # The thread sees the end of the pipe and closes its side.
            os.close(self._pipe[1])
            self._pipe = None
        _installed.discard(self)

    def _note(self, number: int, _frame) -> None:
        if self.requested is None:
            self.requested = int(number)
            if self.at_once:
                self.raise_if_requested()
            # Not print: the handler may run inside another print to the same stream.
            hint = "; Ctrl-C again ends at once" if number == signal.SIGINT else ""
            _say(f"segtrain: {signal.Signals(number).name}: stopping after this step{hint}\n")

    def raise_if_requested(self, message: str | None = None) -> None:
        """Raises errors.Interrupted, whose exit code is 128 + the signal, if a signal came."""
        if self.requested is not None:
            raise Interrupted(self.requested, message or f"stopped by {signal.Signals(self.requested).name}")

    def _leave_child(self) -> None:
        """In a forked child (a loader's worker): the parent decides, and its `terminate` must work."""
        for number, action in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.SIG_IGN)):
            if signal.getsignal(number) == self._note:
                signal.signal(number, action)
        if self._pipe is not None:
            # The pipe is the parent's: a signal to this child is not one to the run.
            signal.set_wakeup_fd(-1)
            for descriptor in self._pipe:
                os.close(descriptor)
            self._pipe = None


_installed: weakref.WeakSet[Stop] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: [stop._leave_child() for stop in list(_installed)])


def _watch(descriptor: int) -> None:
    """Ends the process at the second SIGINT. Two within 0.1 s are one: a launcher passes on what the terminal
    sent too."""
    last = -math.inf
    interrupts = 0
    while numbers := os.read(descriptor, 512):
        if signal.SIGINT in numbers:
            now = time.monotonic()
            interrupts += now - last > 0.1
            last = now
        if interrupts >= 2:
            end_at_once(128 + signal.SIGINT)
    os.close(descriptor)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


def end_at_once(exit_code: int) -> None:
    """Kills every process that this one started, and theirs, and ends without any clean-up."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    os._exit(exit_code)


def descendants(pid: int) -> list[int]:
    """Ids of the living children of `pid` and of theirs, from /proc (elsewhere: the children that
    multiprocessing knows)."""
    if not os.path.isdir("/proc/self"):
        module = sys.modules.get("multiprocessing")
        return [child.pid for child in module.active_children() if child.pid] if module else []
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            child = int(entry)
            with open(f"/proc/{child}/stat", "rb") as file:
                # The process's name stands in brackets and may hold anything.
                parent = int(file.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(child)
    found = list(children.get(pid, []))
    for one in found:
        found.extend(children.get(one, []))
    return found
