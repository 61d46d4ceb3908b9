"""The code that runs in a loader worker, and how workers are started."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

import cv2
import torch
from torch.utils.data import _utils
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from segtrain.errors import ResourceError, SegtrainError
from segtrain.loader.batch import Batch, SharedMemoryError, shared_memory_fix
from segtrain.run.stop import SIGNALS

# Which sample each worker is reading, for the error message when it dies: per worker its process id and the
# sample's index + 1.
_note: Sequence[int] | None = None


_slot = 0


def note_reading(index: int) -> None:
    """Tells the parent which sample this worker is reading."""
    if _note is not None:
        _note[2 * _slot + 1] = index + 1


class Work:
    """The reader as a data set for DataLoader: positions to a batch. Errors are returned, not raised, so
    that they keep their class on the way to the parent.

    section: of the config, "loader" or "evaluate", whose keys the errors name.
    """

    def __init__(self, reader, section: str):
        self.reader, self.section = reader, section

    def __getitems__(self, positions: list[int]) -> Batch | SegtrainError:
        try:
            return self.reader.batch(positions)
        except SharedMemoryError as error:
            return ResourceError(f"{error}; {shared_memory_fix(self.section)}")
        except SegtrainError as error:
            return error
        except MemoryError:
            return ResourceError(
                f"a loader worker ran out of memory; lower {self.section}.workers or "
                f"{self.section}.batch_size, or use smaller images"
            )


def as_it_is(item):
    return item


class WorkerIterator(_MultiProcessingDataLoaderIter):
    """torch's iterator over what workers read, whose clean-up is left to `Batches`.

    torch's own joins one worker after another, waits for locks that a killed worker may hold, and fails on an
    iterator of which only some workers were started.
    """

    def _shutdown_workers(self) -> None:
        if getattr(self, "_worker_pids_set", False):
            self._worker_pids_set = False
            _utils.signal_handling._remove_worker_pids(id(self))


class WorkerStart:
    """The worker_init_fn: signals, threads, and the death of the parent."""

    def __init__(self, note, die_with_parent: bool):
        self.note, self.die_with_parent, self.parent = note, die_with_parent, os.getpid()

    def __call__(self, worker_id: int) -> None:
        global _note, _slot
        _note, _slot = self.note, worker_id
        _note[2 * worker_id] = os.getpid()
        # The parent decides when to stop: a signal to the process group must not end the workers.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        cv2.setNumThreads(0)
        torch.set_num_threads(1)
        if self.die_with_parent and sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != self.parent:  # the parent died before prctl took effect
                os._exit(1)


def undisturbed(make: Callable):
    """`make()` without the SIGCHLD handler that torch installs, which would raise at any point of the
    main thread's code.

    Dead workers are detected when the next batch is requested.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return make()
    before = signal.getsignal(signal.SIGCHLD)
    can_mask = hasattr(signal, "pthread_sigmask")
    # Workers inherit the mask and keep it until they ignore these signals.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if can_mask else None
    try:
        return make()
    finally:
        if can_mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGCHLD, before)
