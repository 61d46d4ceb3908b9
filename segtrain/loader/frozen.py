"""Workers that a signal has stopped (SIGSTOP, a terminal, a batch system) and that nobody lets go on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess

from segtrain.errors import SegtrainError

POLL_S = 0.5
FROZEN_S = 20
"""How long a worker may be stopped. A slow one is not: it waits for its disk, and the system says so."""


class FrozenWatch:
    """A thread that ends workers which stay stopped, at once when the run is asked to end.

    The parent cannot see to it: it may be in the middle of fetching a batch from that very worker, where only
    the worker's death wakes it.

    interrupt: raises errors.Interrupted once somebody asked. ended: process ids of those that were ended.
    """

    def __init__(self, workers: Sequence[BaseProcess], interrupt: Callable[[], None]):
        self.ended: list[int] = []
        self._workers, self._interrupt = workers, interrupt
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="frozen workers", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        # Polls, not the clock: time in which the parent itself was stopped does not count.
        polls = dict.fromkeys((worker.pid for worker in self._workers), 0)
        while not self._closed.wait(POLL_S):
            allowed = 0 if self._asked() else FROZEN_S / POLL_S
            for worker in self._workers:
                polls[worker.pid] = polls[worker.pid] + 1 if is_stopped(worker.pid) else 0
                if polls[worker.pid] > allowed:
                    self.ended.append(worker.pid)
                    worker.kill()

    def _asked(self) -> bool:
        try:
            self._interrupt()
        except SegtrainError:
            return True
        return False


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped this child; False where the system cannot tell."""
    if not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    except OSError:
        return False
