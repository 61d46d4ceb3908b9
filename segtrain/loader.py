"""Batches: seeded, seekable, read by worker processes that can fail without taking the run's reason with
them.

A training position counts samples over all epochs. Which sample it is and how that is augmented are functions
of (seed, position), so neither the number of workers nor the place where a run goes on changes a batch.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import math
import multiprocessing
import multiprocessing.sharedctypes
import os
import shutil
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info
from tqdm import tqdm

from segtrain.augmentation import apply
from segtrain.errors import ConfigError, DataError, ResourceError, SegtrainError, printable
from segtrain.sample import IGNORE, Sample, no_label
from segtrain.settings import Loader

ORDER, AUGMENT, SUBSTITUTE = 1, 2, 3  # streams of random numbers under one seed
SUBSTITUTES = 10  # tries before a position without a readable sample is an error
BAD_SHARE = 0.01  # of the samples of the epochs begun, once BAD_SHARE_FROM positions are served
BAD_SHARE_FROM = 100
POLL_S = 1  # how often a waiting parent looks whether its workers live
# in a row without any worker beginning a sample: they are stuck. Seconds in which the parent itself is
# stopped do not count
STALLED_POLLS = 28


@dataclass
class Batch:
    """images: B×K×H×W uint8, uint16 or float32. targets: B×H×W in the task's dtype. names, positions: of each
    sample.

    count: images that are real; those behind are copies that fill the last evaluation batch up, all ignored.
    skipped: one message for each unreadable sample that another stands in for.
    """

    images: torch.Tensor
    targets: torch.Tensor
    names: list[str]
    positions: list[int]
    count: int
    skipped: list[str] = field(default_factory=list)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on the device; copies to a GPU go through pinned memory and do not wait."""
        device = torch.device(device)
        if device.type == "cpu":
            return self
        tensors = {"images": self.images, "targets": self.targets}
        if device.type == "cuda":
            tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
        return replace(
            self, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
        )


def training_batches(split, ops: Sequence[Callable], settings: Loader, seed: int, start: int = 0) -> Batches:
    """Endless batches from position `start` on. `ops`: augmentation operations, in order."""
    check_settings(settings)
    reader = Reader(split, tuple(ops), seed, settings.on_bad == "skip", settings.cache == "memory")
    return Batches(reader, TrainingPlan(start, settings.batch_size), settings.workers)


def evaluation_batches(split, batch_size: int, workers: int, ignore_index: int = IGNORE) -> Batches:
    """Every sample once, unaugmented, in batches of one image size whose order the data alone decides.

    The last batch of each size is filled up with copies that have no label, so all batches of a size have one
    shape.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index in range(len(split)):
        groups.setdefault(split.size(index), []).append(index)
    plan, filled_to = [], {}
    for group in groups.values():
        for first in range(0, len(group), batch_size):
            plan.append(group[first : first + batch_size])
            # A size of which there are only a few images needs no more places than that.
            filled_to[group[first]] = min(batch_size, len(group))
    return Batches(EvaluationReader(split, filled_to, ignore_index), plan, min(workers, len(plan)))


class Samples:
    """The first `count` samples of a split as they are stored, one after the other, as often as somebody
    asks: for networks that are fitted, not trained. between: called before each, what it raises ends the
    reading. skip_bad: leave unreadable ones out."""

    def __init__(self, split, count: int, skip_bad: bool = False, between: Callable[[], None] = lambda: None):
        self._split, self._count, self._skip_bad, self._between = split, count, skip_bad, between

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        bad = 0
        for index in tqdm(range(self._count), unit="image", desc="reading", leave=False, disable=None):
            self._between()
            try:
                sample = self._split[index]
            except DataError as error:
                bad += 1
                if not self._skip_bad or bad > max(1, BAD_SHARE * self._count):
                    raise
                print(f"segtrain: skipped: {printable(str(error))}", file=sys.stderr)
                continue
            yield sample


def check_settings(settings: Loader) -> None:
    """ConfigError for numbers that no loader can have."""
    if settings.batch_size < 1:
        raise ConfigError(f"loader.batch_size is {settings.batch_size}; allowed: an integer from 1")
    if settings.workers < 0:
        raise ConfigError(
            f"loader.workers is {settings.workers}; allowed: 0 (read in the main process) or more"
        )


class TrainingPlan:
    """Lists of positions, without end."""

    def __init__(self, start: int, batch_size: int):
        self.start, self.batch_size = start, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        position = self.start
        while True:
            yield list(range(position, position + self.batch_size))
            position += self.batch_size


class Reader:
    """Training samples by position, put together to batches."""

    def __init__(
        self, split, ops: tuple[Callable, ...], seed: int, skip_bad: bool = False, cached: bool = False
    ):
        self.split, self.ops, self.seed, self.skip_bad = split, ops, seed, skip_bad
        self.cache: dict[int, Sample] | None = {} if cached else None
        self.orders: dict[int, np.ndarray] = {}

    def index(self, position: int) -> int:
        """Which sample stands at a position: each epoch has its own permutation."""
        epoch, place = divmod(position, len(self.split))
        if epoch not in self.orders:
            self.orders = {known: order for known, order in self.orders.items() if known == epoch - 1}
            self.orders[epoch] = np.random.default_rng([self.seed, ORDER, epoch]).permutation(len(self.split))
        return int(self.orders[epoch][place])

    def raw(self, index: int) -> Sample:
        """Sample `index` as it is stored; cached arrays are read-only."""
        if self.cache is None:
            return self._read(index)
        if index not in self.cache:
            sample = self._read(index)
            for array in (sample.image, sample.target, sample.instances):
                if array is not None:
                    array.flags.writeable = False
            self.cache[index] = sample
        return replace(self.cache[index])

    def _read(self, index: int) -> Sample:
        note_reading(index)
        return self.split[index]

    def sample(self, position: int, index: int, skipped: list[str]) -> Sample:
        """The augmented sample."""
        rng = np.random.default_rng([self.seed, AUGMENT, position])
        return apply(self.ops, self.raw(index), rng, functools.partial(self._another, skipped))

    def _another(self, skipped: list[str], rng: np.random.Generator) -> Sample:
        """A raw sample that `rng` draws, for operations that mix two; with skip_bad it draws again past
        unreadable ones."""
        for attempt in range(SUBSTITUTES + 1):
            try:
                return self.raw(int(rng.integers(len(self.split))))
            except DataError as error:
                if not self.skip_bad or attempt == SUBSTITUTES:
                    raise
                skipped.append(str(error))

    def sample_or_substitute(self, position: int, skipped: list[str]) -> Sample:
        """The sample at `position`, or the first readable one of a seeded list that stands in for it."""
        if not self.skip_bad:
            return self.sample(position, self.index(position), skipped)
        others = np.random.default_rng([self.seed, SUBSTITUTE, position]).integers(
            len(self.split), size=SUBSTITUTES
        )
        for index in (self.index(position), *others.tolist()):
            try:
                sample = self.sample(position, index, skipped)
                break
            except DataError as error:
                last = error
                skipped.append(str(error))
        else:
            raise DataError(f"{SUBSTITUTES + 1} samples in a row cannot be read, the last: {last}")
        return sample

    def batch(self, positions: list[int]) -> Batch:
        skipped: list[str] = []
        samples = [self.sample_or_substitute(position, skipped) for position in positions]
        return collated(samples, positions, skipped=skipped)


class EvaluationReader:
    """Samples by index, put together to batches of one shape."""

    def __init__(self, split, filled_to: dict[int, int], ignore_index: int):
        """filled_to: places of a batch, by its first index."""
        self.split, self.filled_to, self.ignore_index = split, filled_to, ignore_index

    def batch(self, indices: list[int]) -> Batch:
        samples = []
        for index in indices:
            note_reading(index)
            samples.append(self.split[index])
        missing = self.filled_to[indices[0]] - len(samples)
        filler = replace(
            samples[-1],
            target=np.full_like(samples[-1].target, no_label(samples[-1].target.dtype, self.ignore_index)),
        )
        return collated(samples + [filler] * missing, indices + [indices[-1]] * missing, count=len(indices))


def collated(
    samples: list[Sample], positions: list[int], count: int | None = None, skipped: list[str] | None = None
) -> Batch:
    """The samples as one batch, channels first. Images of different sizes are an error."""
    first = samples[0]
    for sample in samples:
        if sample.image.shape != first.image.shape or sample.image.dtype != first.image.dtype:
            alike = sample.image.shape == first.image.shape
            fix = (
                "save all images with as many bits"
                if alike
                else "set augmentation.warp.size, or loader.batch_size=1"
            )
            raise ConfigError(
                f"a batch holds {_form(first)} ({first.name}) and {_form(sample)} ({sample.name}); images "
                f"of one batch have one size and "
                f"one type: {fix}"
            )
        if sample.target is None:
            raise DataError(f"{sample.name} has no mask; training and evaluation need one for each image")
    height, width, channels = first.image.shape
    images = _shared((len(samples), channels, height, width), first.image.dtype)
    targets = _shared((len(samples), *first.target.shape), first.target.dtype)
    for place, sample in enumerate(samples):
        images.numpy()[place] = sample.image.transpose(2, 0, 1)
        targets.numpy()[place] = sample.target
    return Batch(
        images,
        targets,
        [s.name for s in samples],
        list(positions),
        len(samples) if count is None else count,
        skipped or [],
    )


def _form(sample: Sample) -> str:
    return f"{'x'.join(map(str, sample.image.shape))} {sample.image.dtype}"


def _shared(shape: tuple[int, ...], dtype: np.dtype) -> torch.Tensor:
    """An empty tensor; in a worker it lies in shared memory, so that handing it over copies nothing."""
    tensor = torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype)
    if get_worker_info() is None:
        return tensor
    try:
        # Writing to shared memory that does not exist kills the process, so room is looked for first.
        if _free_shared_memory() < 2 * tensor.nbytes:
            raise OSError(
                f"{_free_shared_memory() >> 20} MiB free, a batch takes {(tensor.nbytes >> 20) + 1} MiB"
            )
        return tensor.share_memory_()
    except (OSError, RuntimeError) as error:
        raise ResourceError(
            f"shared memory (/dev/shm) is too small for the workers' batches: {error}; {SHARED_MEMORY_FIX}"
        ) from error


SHARED_MEMORY_FIX = (
    "enlarge it (docker run --shm-size=8g), or set loader.workers=0, or a smaller loader.batch_size"
)


def _free_shared_memory() -> int:
    return shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else sys.maxsize


# What each worker reads, for the message when it dies: two numbers a worker, its process id and the sample's
# index + 1.
_note: Sequence[int] | None = None
_slot = 0


def note_reading(index: int) -> None:
    """Lets the parent see which sample this process is at."""
    if _note is not None:
        _note[2 * _slot + 1] = index + 1


class Work:
    """The reader as the DataLoader sees it: a list of positions in, a batch or the error out (errors travel
    as values)."""

    def __init__(self, reader: Reader | EvaluationReader):
        self.reader = reader

    def __getitems__(self, positions: list[int]) -> Batch | SegtrainError:
        try:
            return self.reader.batch(positions)
        except SegtrainError as error:
            return error
        except MemoryError:
            return ResourceError(
                "a loader worker ran out of memory; lower loader.workers or loader.batch_size, or use "
                "smaller images"
            )


def _as_it_is(item):
    return item


HELD_BACK = (signal.SIGINT, signal.SIGTERM)


class WorkerStart:
    """Run in each worker before it reads."""

    def __init__(self, note, die_with_parent: bool):
        self.note, self.die_with_parent, self.parent = note, die_with_parent, os.getpid()

    def __call__(self, worker_id: int) -> None:
        global _note, _slot
        _note, _slot = self.note, worker_id
        _note[2 * worker_id] = os.getpid()
        # The parent decides when to stop; signals to the whole process group must not take the workers from
        # under it.
        for number in HELD_BACK:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        cv2.setNumThreads(0)
        torch.set_num_threads(1)
        if self.die_with_parent and sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != self.parent:  # it died before that
                os._exit(1)


class Batches:
    """An iterator over batches that can be closed.

    bad: samples that others stood in for so far. An error of a worker is raised here with its own class; a
    worker that died becomes a ResourceError that names what it was reading.
    """

    def __init__(self, reader: Reader | EvaluationReader, plan, workers: int):
        self.bad = 0
        self._served = 0
        self._split = reader.split
        self._work = Work(reader)
        self._workers: list = []
        self._closed = False
        self._iterator = (
            self._in_processes(plan, workers) if workers > 0 else map(self._work.__getitems__, plan)
        )

    def _in_processes(self, plan, workers: int) -> Iterator:
        self._note = multiprocessing.sharedctypes.RawArray("q", 2 * workers)
        # A parent thread that ends would take the workers with it, so only the main thread ties them to its
        # life.
        start = WorkerStart(self._note, threading.current_thread() is threading.main_thread())
        loader = DataLoader(
            self._work,
            batch_sampler=plan,
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=start,
            generator=torch.Generator(),  # its own: torch's global random state stays as it is
            timeout=POLL_S,
        )
        before = {process.pid for process in multiprocessing.active_children()}
        iterator = _undisturbed(lambda: iter(loader))
        self._workers = [
            process for process in multiprocessing.active_children() if process.pid not in before
        ]
        self._at_exit = functools.partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)
        return iterator

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
            reason = self._reason(error)
            self.close()
            if reason is None:
                raise
            raise reason from error
        if isinstance(found, SegtrainError):
            self.close()
            raise found
        self._count(found)
        return found

    def _next(self) -> Batch | SegtrainError:
        """The workers' next batch, waited for as long as one of them gets on."""
        polls, seen = 0, list(self._note)
        while True:
            try:
                return next(self._iterator)
            except RuntimeError as error:
                if "timed out" not in str(error) or polls >= STALLED_POLLS or self._dead():
                    raise
            polls = polls + 1 if seen == list(self._note) else 0
            seen = list(self._note)

    def _count(self, batch: Batch) -> None:
        self.bad += len(batch.skipped)
        self._served += batch.count
        for message in batch.skipped:
            print(f"segtrain: skipped: {printable(message)}", file=sys.stderr)
        # Every bad sample turns up once an epoch, early or late in it: the share is that of whole epochs.
        epochs = math.ceil(self._served / len(self._split))
        if self._served >= BAD_SHARE_FROM and self.bad > BAD_SHARE * epochs * len(self._split):
            self.close()
            raise DataError(
                f"{self.bad} times in {self._served} a sample could not be read, the last: "
                f"{(batch.skipped or ['?'])[-1]}; "
                f"loader.on_bad=skip allows {BAD_SHARE:.0%}; mend the files"
            )

    def _reason(self, error: Exception) -> ResourceError | None:
        """What became of the workers; None if they are not at fault."""
        for _ in range(20):  # a dying worker gets a moment to be seen as dead
            if self._dead():
                return self._of_dead(self._dead()[0])
            time.sleep(0.05 if self._workers else 0)
        if "timed out" in str(error):
            waited = STALLED_POLLS * POLL_S
            return ResourceError(
                f"the loader's workers did not get on for {waited} s, at {self._reading()}; is the storage "
                f"still there?"
            )
        if "Too many open files" in str(error):
            return ResourceError(
                "too many open files between the loader's workers; raise the limit (ulimit -n 65536) or "
                "lower loader.workers"
            )
        return None

    def _dead(self) -> list:
        """Workers that ended by themselves."""
        return [process for process in self._workers if process.exitcode not in (None, 0)]

    def _of_dead(self, process) -> ResourceError:
        code = process.exitcode
        ended = signal.Signals(-code).name if code < 0 else f"exit {code}"
        fixes = {
            -signal.SIGBUS: f"shared memory (/dev/shm) is too small; {SHARED_MEMORY_FIX}",
            -signal.SIGKILL: "out of memory? lower loader.workers or loader.batch_size",
        }
        fix = fixes.get(code, "is that file damaged? replace or remove it")
        return ResourceError(
            f"a loader worker (pid {process.pid}) died ({ended}) while reading "
            f"{self._reading(process.pid)}; {fix}"
        )

    def _reading(self, pid: int | None = None) -> str:
        """Names of what the workers (or that with `pid`) were reading."""
        notes = [(self._note[k], self._note[k + 1]) for k in range(0, len(self._note), 2)]
        names = [self._split.name(index - 1) for owner, index in notes if index and pid in (None, owner)]
        return ", ".join(names) or "nothing (between two samples)"

    def close(self) -> None:
        """Ends the workers. Nothing they hold is worth waiting for."""
        if self._closed:
            return
        self._closed = True
        if self._workers:
            atexit.unregister(self._at_exit)
        for process in self._workers:
            process.kill()
        for process in self._workers:
            process.join(timeout=2)  # one that waits for a dead disk cannot be ended
        if self._workers:
            # A killed worker may have held the lock of the event that torch sets when it cleans up: it would
            # wait for ever.
            self._iterator._workers_done_event = threading.Event()
        self._iterator = None

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()


def _close(batches: weakref.ref) -> None:
    """At the end of the process, for those that nobody closed."""
    found = batches()
    if found is not None:
        found.close()


def _undisturbed(make: Callable):
    """`make()`, without the SIGCHLD handler that torch installs: it would raise in the middle of whatever the
    main thread is doing.

    Dead workers are found when the next batch is asked for.
    """
    if threading.current_thread() is not threading.main_thread():
        return make()
    before = signal.getsignal(signal.SIGCHLD)
    # Workers start with these held back, until they ignore them.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        return make()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGCHLD, before)
