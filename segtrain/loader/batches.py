"""An iterator over batches read by worker processes, with a one-line error for each way a worker can fail."""

from __future__ import annotations

import atexit
import errno
import functools
import math
import multiprocessing.sharedctypes
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader

from segtrain import ranks
from segtrain.errors import DataError, ResourceError, SegtrainError
from segtrain.loader.batch import Batch, shared_memory_fix
from segtrain.loader.frozen import FROZEN_S, FrozenWatch
from segtrain.loader.reader import EvaluationReader, Reader
from segtrain.loader.workers import Work, WorkerIterator, WorkerStart, as_it_is, undisturbed
from segtrain.run.resources import known_error, lacks_files
from segtrain.text import notice

BAD_SHARE = 0.01  # of the samples of the epochs begun, once BAD_SHARE_FROM positions are served


BAD_SHARE_FROM = 100


POLL_S = 1  # interval at which a waiting parent checks that its workers are alive


# Polls in a row in which no worker begins a sample: they are stuck. Polls, not seconds: time in which the
# parent itself is stopped does not count.
STALLED_POLLS = 28


# Open files that the parent needs: pipes of each worker, and the tensors of two batches in advance.
FILES_PER_WORKER = 4 + 2 * 3


SPARE_FILES = 16


NO_SHARED_MEMORY = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOSYS)
"""What the system answers where /dev/shm takes no semaphore."""


class Batches:
    """An iterator over batches, also a context manager, which has to be closed.

    bad: samples so far that were unreadable and replaced by others. An error of a worker is raised here with
    its own class; a worker that died, was frozen or could not be started is a ResourceError.

    section: of the config, "loader" or "evaluate", whose keys the errors name. interrupt: called while a
    batch is waited for; it raises errors.Interrupted to end that.
    """

    def __init__(
        self,
        reader: Reader | EvaluationReader,
        plan,
        workers: int,
        section: str = "loader",
        interrupt: Callable[[], None] = lambda: None,
    ):
        self.bad = 0
        self._served = 0
        self._split = reader.split
        self._section, self._interrupt = section, interrupt
        self._work = Work(reader, section)
        self._workers: list = []
        self._closed = False
        self._iterator = (
            self._in_processes(plan, workers) if workers > 0 else map(self._work.__getitems__, plan)
        )

    def _in_processes(self, plan, workers: int) -> Iterator:
        limit = lacks_files(workers * FILES_PER_WORKER + SPARE_FILES)
        if limit is not None:
            raise ResourceError(
                f"too many open files: {workers} workers need {workers * FILES_PER_WORKER} and all of this "
                f"process may be {limit}; lower {self._section}.workers (0: none), or raise the limit "
                f"(ulimit -n 65536)"
            )
        before = {process.pid for process in multiprocessing.active_children()}
        try:
            iterator = self._started(plan, workers)
        except (OSError, RuntimeError, MemoryError) as error:
            _end([process for process in multiprocessing.active_children() if process.pid not in before])
            raise self._not_started(error, workers) from error
        self._workers = list(iterator._workers)
        self._watch = FrozenWatch(self._workers, self._interrupt)
        self._at_exit = functools.partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)
        return iterator

    def _started(self, plan, workers: int) -> WorkerIterator:
        self._note = multiprocessing.sharedctypes.RawArray("q", 2 * workers)
        # PR_SET_PDEATHSIG fires when the parent *thread* ends, so only the main thread sets it.
        start = WorkerStart(self._note, threading.current_thread() is threading.main_thread())
        loader = DataLoader(
            self._work,
            batch_sampler=plan,
            num_workers=workers,
            collate_fn=as_it_is,
            worker_init_fn=start,
            generator=torch.Generator(),  # its own, so that torch's global random state is not advanced
            timeout=POLL_S,
        )
        return undisturbed(lambda: WorkerIterator(loader))

    def _not_started(self, error: Exception, workers: int) -> Exception:
        """The error of the user for workers that the system does not start; `error` itself if it is none."""
        key = f"{self._section}.workers"
        fix = f"lower {key} (0: none)"
        if getattr(error, "errno", None) in NO_SHARED_MEMORY:
            fix = f"is shared memory (/dev/shm) too small? {shared_memory_fix(self._section)}"
        elif known_error(error) is None:
            return error
        reason = getattr(error, "strerror", None) or str(error) or "out of memory"
        return ResourceError(f"{key}={workers} processes cannot be started ({reason}); {fix}")

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        if self._closed:
            raise StopIteration
        try:
            found = self._next() if self._workers else next(self._iterator)
        except StopIteration:
            self.close()
            raise
        except (RuntimeError, OSError, EOFError) as error:
            try:
                self._interrupt()
                reason = self._reason(error)
            finally:
                self.close()
            if reason is None:
                raise
            raise reason from error
        except BaseException:
            self.close()
            raise
        if isinstance(found, SegtrainError):
            self.close()
            raise found
        self._count(found)
        return found

    def _next(self) -> Batch | SegtrainError:
        """The next batch of the workers; RuntimeError if none of them makes progress for
        STALLED_POLLS."""
        polls, seen = 0, list(self._note)
        while True:
            try:
                return next(self._iterator)
            except RuntimeError as error:
                if "timed out" not in str(error) or polls >= STALLED_POLLS or self._dead():
                    raise
                self._interrupt()
            polls = polls + 1 if seen == list(self._note) else 0
            seen = list(self._note)

    def _count(self, batch: Batch) -> None:
        self.bad += len(batch.skipped)
        self._served += batch.count
        for message in batch.skipped:
            notice(f"skipped: {message}")
        # A bad sample occurs once per epoch, early or late in it, so the share is that of whole epochs.
        samples = len(self._split) / ranks.world_size()  # of an epoch, on this rank
        epochs = math.ceil(self._served / samples)
        if self._served >= BAD_SHARE_FROM and self.bad > BAD_SHARE * epochs * samples:
            self.close()
            raise DataError(
                f"{self.bad} of {self._served} samples could not be read, the last: "
                f"{(batch.skipped or ['?'])[-1]}; "
                f"loader.on_bad=skip allows {BAD_SHARE:.0%}; repair or remove the files"
            )

    def _reason(self, error: Exception) -> ResourceError | None:
        """The error for workers that died or made no progress; None if `error` has another cause."""
        for _ in range(20):  # a dying worker gets a moment to be seen as dead
            if self._dead():
                return self._of_dead(self._dead()[0])
            time.sleep(0.05 if self._workers else 0)
        if "timed out" in str(error):
            waited = STALLED_POLLS * POLL_S
            return ResourceError(
                f"the loader's workers made no progress for {waited} s, at {self._reading()}; is the storage "
                f"still there?"
            )
        # The second: what the system leaves of a message whose open files find no room.
        if any(words in str(error) for words in ("Too many open files", "items of ancillary data")):
            return ResourceError(
                f"too many open files between the loader's workers; raise the limit (ulimit -n 65536) or "
                f"lower {self._section}.workers"
            )
        return None

    def _dead(self) -> list:
        """Workers that have died."""
        return [process for process in self._workers if process.exitcode not in (None, 0)]

    def _of_dead(self, process) -> ResourceError:
        if process.pid in self._watch.ended:
            return ResourceError(
                f"a loader worker (pid {process.pid}) was stopped by a signal (SIGSTOP) for {FROZEN_S} s, at "
                f"{self._reading(process.pid)}; what stops it must let it go on (kill -CONT)"
            )
        code = process.exitcode
        ended = signal.Signals(-code).name if code < 0 else f"exit {code}"
        fixes = {
            -getattr(
                signal, "SIGBUS", 7
            ): f"shared memory (/dev/shm) is too small; {shared_memory_fix(self._section)}",
            -getattr(signal, "SIGKILL", 9): "out of memory? lower "
            f"{self._section}.workers or {self._section}.batch_size",
        }
        fix = fixes.get(code, "is that file damaged? replace or remove it")
        return ResourceError(
            f"a loader worker (pid {process.pid}) died ({ended}) while reading "
            f"{self._reading(process.pid)}; {fix}"
        )

    def _reading(self, pid: int | None = None) -> str:
        """Names of the samples that the workers, or the one with `pid`, were reading."""
        notes = [(self._note[k], self._note[k + 1]) for k in range(0, len(self._note), 2)]
        names = [self._split.name(index - 1) for owner, index in notes if index and pid in (None, owner)]
        return ", ".join(names) or "nothing (between two samples)"

    def close(self) -> None:
        """Kills the workers: they hold nothing that must be saved."""
        if self._closed:
            return
        self._closed = True
        if self._workers:
            atexit.unregister(self._at_exit)
            self._watch.close()
            _end(self._workers)
            self._iterator._shutdown_workers()
        self._iterator = None

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()


def _end(processes: list) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join(timeout=2)  # one that waits for a dead disk cannot be ended


def _close(batches: weakref.ref) -> None:
    """Run at exit for Batches that were not closed."""
    found = batches()
    if found is not None:
        found.close()
