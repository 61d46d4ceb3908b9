"""Signals: the run finishes the current step, saves a checkpoint and exits; a second Ctrl-C kills it."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterator

from segtrain.errors import SIGPIPE, Interrupted

SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")
    if hasattr(signal, name)
]
"""Signals that stop a run. SIGHUP is sent when a terminal is closed; it stays ignored under nohup. SIGUSR1,
SIGUSR2 and SIGXCPU are sent by batch systems (Slurm, Grid Engine, LSF) shortly before a job's time is
over."""


class Stop:
    """Whether somebody asked the run to end. `Stop().install()` watches SIGNALS; `Stop()` alone
    never asks.

    The first signal is only noted: the program goes on to its next safe point (the loop ends the step and
    saves) and calls `raise_if_requested` there. Within `at_once()` the signal itself raises. A second SIGINT
    ends this process and its children at once with 130.
    """

    def __init__(self):
        self.requested: int | None = None
        self._at_once = False
        self._previous: dict[int, object] = {}
        self._pipe: tuple[socket.socket, socket.socket] | None = None

    def install(self) -> Stop:
        """Installs the signal handlers, in the main thread only; returns itself."""
        if threading.current_thread() is not threading.main_thread() or self._previous:
            return self
        for number in SIGNALS:
            if signal.getsignal(number) == signal.SIG_IGN and number not in (signal.SIGTERM, signal.SIGINT):
                continue  # nohup
            self._previous[number] = signal.signal(number, self._note)
        # A handler waits until the main thread comes out of a long operation; a thread that reads this pipe
        # does not.
        self._pipe = socket.socketpair()  # Windows has no pipe for this
        self._pipe[1].setblocking(False)
        signal.set_wakeup_fd(self._pipe[1].fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(self._pipe[0],), name="stop", daemon=True).start()
        _installed.add(self)
        return self

    def restore(self) -> None:
        """Restores the previous signal handlers."""
        while self._previous:
            number, previous = self._previous.popitem()
            signal.signal(number, previous)
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            # The thread sees the end of the pipe and closes its side.
            self._pipe[1].close()
            self._pipe = None
        _installed.discard(self)

    def _note(self, number: int, _frame) -> None:
        if self.requested is None:
            self.requested = int(number)
            if self._at_once:
                self.raise_if_requested()
            # Not print: the handler may run inside another print to the same stream.
            hint = "; Ctrl-C again ends at once" if number == signal.SIGINT else ""
            _say(f"segtrain: {signal.Signals(number).name}: stopping after this step{hint}\n")

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """While nothing has begun that could be lost: a signal raises errors.Interrupted wherever the program
        is, and so does one that came before."""
        self.raise_if_requested()
        outer, self._at_once = self._at_once, True
        try:
            yield
        except Exception:
            self.raise_if_requested()  # a library that takes every exception for its own raised another
            raise
        finally:
            self._at_once = outer
        self.raise_if_requested()

    def agree(self) -> None:
        """The safe point at which several ranks agree on whether to end; one process has nobody to ask."""

    def raise_if_requested(self, message: str | None = None) -> None:
        """Raises errors.Interrupted, whose exit code is 128 + the signal, if a signal came."""
        if self.requested is not None:
            raise Interrupted(self.requested, message or f"stopped by {_name(self.requested)}")

    def request(self, number: int) -> None:
        """Asks the run to end at its next safe point, as the signal of that number does."""
        if self.requested is None:
            self.requested = number
            _say(f"segtrain: {_name(number)}: stopping after this step\n")

    def _leave_child(self) -> None:
        """In a forked child (a loader worker): SIGINT is ignored, as the parent ends its workers, and
        SIGTERM has its default action, so that the parent can."""
        for number in SIGNALS:
            action = signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL
            if signal.getsignal(number) == self._note:
                signal.signal(number, action)
        if self._pipe is not None:
            # The pipe is the parent's: a signal to this child is not one to the run.
            signal.set_wakeup_fd(-1)
            for end in self._pipe:
                end.close()
            self._pipe = None


_installed: weakref.WeakSet[Stop] = weakref.WeakSet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: [stop._leave_child() for stop in list(_installed)])


def keep_exit_code() -> None:
    """For the end of the program, when Python unloads what it has imported: of SIGNALS, only Ctrl-C still
    ends the process. torchrun sends SIGTERM to all other ranks when the first has ended, which would else
    change the exit code of a run that has saved and ended."""
    for number in SIGNALS:
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_IGN)


def _watch(pipe: socket.socket) -> None:
    """Kills this process at the second SIGINT. Two within 0.1 s count as one: the terminal sends SIGINT to
    the process group, and a launcher may forward it once more."""
    last = -math.inf
    interrupts = 0
    while numbers := pipe.recv(512):
        if signal.SIGINT in numbers:
            now = time.monotonic()
            interrupts += now - last > 0.1
            last = now
        if interrupts >= 2:
            end_at_once(128 + signal.SIGINT)
    pipe.close()


def _name(number: int) -> str:
    return "SIGPIPE (stdout has no reader)" if number == SIGPIPE else signal.Signals(number).name


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


def end_at_once(exit_code: int) -> None:
    """Kills all descendants of this process and exits without any clean-up."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    os._exit(exit_code)


def descendants(pid: int) -> list[int]:
    """Process ids of all descendants of `pid`, from /proc; elsewhere, those of the children that this process
    started by multiprocessing."""
    if not os.path.isdir("/proc/self"):
        module = sys.modules.get("multiprocessing")
        return [child.pid for child in module.active_children() if child.pid] if module else []
    children = _all_children()
    found = list(children.get(pid, []))
    for one in found:
        found.extend(children.get(one, []))
    return found


def children_of(pid: int) -> list[int]:
    """Process ids of the children of `pid`, from /proc; elsewhere none."""
    return _all_children().get(pid, []) if os.path.isdir("/proc/self") else []


def _all_children() -> dict[int, list[int]]:
    """{process id: those of its children}, of all processes, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            child = int(entry)
            with open(f"/proc/{child}/stat", "rb") as file:
                # The process's name stands in brackets and may hold anything.
                parent = int(file.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(child)
    return children
