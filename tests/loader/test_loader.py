"""Batches by position, whatever the workers; and each fault of a worker as one clear error."""

import errno
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.augmentation import AUGMENTATION
from segtrain.data import DATA
from segtrain.errors import ConfigError, DataError, Interrupted, ResourceError
from segtrain.loader.batch import collated
from segtrain.loader.frozen import is_stopped
from segtrain.loader.loader import evaluation_batches, training_batches
from segtrain.loader.reader import Reader
from segtrain.sample import IGNORE, Sample
from segtrain.settings import Loader


class Numbers:
    """A split whose sample i is filled with i; `broken` cannot be read, `deadly` kills the process, `slow`
    sleeps."""

    def __init__(self, count=23, broken=(), deadly=(), slow=(), sizes=((6, 8),), seconds=600):
        self.seconds = seconds
        self.count, self.broken, self.deadly, self.slow, self.sizes = (
            count,
            set(broken),
            set(deadly),
            set(slow),
            sizes,
        )

    def __len__(self):
        return self.count

    def name(self, index):
        return f"file-{index}.png"

    def size(self, index):
        return self.sizes[index % len(self.sizes)]

    def __getitem__(self, index):
        if index in self.broken:
            raise DataError(f"{self.name(index)} cannot be decoded")
        if index in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if index in self.slow:
            time.sleep(self.seconds)
        size = self.size(index)
        return Sample(
            np.full((*size, 3), index % 256, np.uint8),
            np.full(size, index % 3, np.uint8),
            name=self.name(index),
        )


def jitter(sample, rng, draw):
    """Random, and with another sample's pixel in it."""
    image = sample.image.copy()
    image[0, 0] = draw(rng).image[0, 0]
    image[0, 1] = rng.integers(0, 256, 3)
    return Sample(image, sample.target, name=sample.name)


def take(count, start=0, workers=0, split=None, **settings):
    with training_batches(
        split or Numbers(), [jitter], Loader(batch_size=4, workers=workers, **settings), 7, start
    ) as batches:
        return [next(batches) for _ in range(count)]


def same(one, other):
    assert one.names == other.names and one.positions == other.positions
    assert torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_batch_depends_on_seed_and_position_alone(workers, cache):
    whole = take(14)
    for start in (0, 4, 20, 40):
        for one, other in zip(take(3, start, workers, cache=cache), whole[start // 4 :], strict=False):
            same(one, other)


def test_batches_straddle_epochs_and_each_epoch_has_its_own_order():
    names = [name for batch in take(23) for name in batch.names][: 4 * 23]
    epochs = [names[first : first + 23] for first in range(0, 92, 23)]
    assert all(sorted(epoch) == sorted(Numbers().name(index) for index in range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert take(23)[22].positions == [88, 89, 90, 91]


def test_the_order_is_the_documented_function():
    reader = Reader(Numbers(), (), seed=7)
    order = np.random.default_rng([7, 1, 2]).permutation(23)
    assert [reader.order.index(2 * 23 + place) for place in range(23)] == order.tolist()


def test_tensors_are_bytes_channels_first():
    batch = take(1)[0]
    assert (
        batch.images.shape == (4, 3, 6, 8)
        and batch.images.dtype == torch.uint8
        and batch.images.is_contiguous()
    )
    assert batch.targets.shape == (4, 6, 8) and batch.targets.dtype == torch.uint8 and batch.count == 4
    assert batch.to("cpu") is batch


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_are_transposed_not_reshaped(dtype):
    image = np.arange(2 * 3 * 5).reshape(2, 3, 5).astype(dtype)
    found = collated([Sample(image, np.zeros((2, 3), np.uint8))], [0]).images
    assert np.array_equal(found.numpy()[0], np.moveaxis(image, 2, 0)) and found.numpy().dtype == dtype


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_states_are_left_alone(workers):
    torch.manual_seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    take(3, workers=workers)
    list(evaluation_batches(Numbers(), 4, workers))
    assert torch.equal(before, torch.get_rng_state()) and np.array_equal(
        numpy_before, np.random.get_state()[1]
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_sample_is_named_in_the_parent(workers):
    with pytest.raises(DataError, match=r"^file-5\.png cannot be decoded$"):
        take(10, workers=workers, split=Numbers(broken=[5]))


@pytest.mark.parametrize("workers", [0, 2])
def test_skip_takes_a_seeded_substitute_and_counts(workers, capsys):
    split = Numbers(count=300, broken=[5, 9])
    with training_batches(split, [], Loader(batch_size=4, workers=workers, on_bad="skip"), 7) as batches:
        found = [next(batches) for _ in range(75)]
        assert batches.bad == 2
    with training_batches(split, [], Loader(batch_size=4, workers=0, on_bad="skip"), 7) as again:
        for batch in found:
            same(batch, next(again))
    names = [name for batch in found for name in batch.names]
    assert len(names) == 300 and not {"file-5.png", "file-9.png"} & set(names)
    assert capsys.readouterr().err.count("segtrain: skipped: file-5.png cannot be decoded\n") == 2


def test_more_than_one_in_a_hundred_is_too_many():
    with pytest.raises(
        DataError, match=r"\d+ of 1\d\d samples could not be read.*loader\.on_bad=skip allows 1%"
    ):
        take(100, split=Numbers(count=50, broken=[5, 9]), on_bad="skip")
    with pytest.raises(DataError, match="11 samples in a row cannot be read"):
        take(1, split=Numbers(broken=range(23)), on_bad="skip")


def test_a_damaged_file_and_a_wrong_value_in_mid_epoch(tmp_path, write_pair):
    for number in range(12):
        write_pair(tmp_path, number, np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8))
    data = DATA.build({"name": "folder", "root": str(tmp_path), "classes": ["a", "b", "c"]})
    (bad,) = [pair for pair in data.splits["train"].pairs if pair == data.splits["train"].pairs[4]]
    Path(bad.image).write_bytes(Path(bad.image).read_bytes()[:50])
    with pytest.raises(DataError, match=rf"{bad.image} cannot be decoded"):
        take(5, workers=2, split=data.splits["train"])
    Image.new("RGB", (16, 16)).save(bad.image)
    Image.new("L", (16, 16), 77).save(bad.mask)
    with pytest.raises(DataError, match=rf"{bad.mask} holds 77 \(256 px\); allowed: 0..2 and 255"):
        take(5, workers=2, split=data.splits["train"])


def test_a_worker_that_dies_is_an_error_that_names_its_file():
    start = time.monotonic()
    with pytest.raises(
        ResourceError, match=r"worker \(pid \d+\) died \(SIGKILL\) while reading file-5\.png; out of memory\?"
    ):
        take(10, workers=2, split=Numbers(deadly=[5]))
    assert time.monotonic() - start < 20


def test_closing_does_not_wait_for_a_lock_that_a_killed_worker_held():
    batches = training_batches(Numbers(), [], Loader(batch_size=4, workers=1), 7)
    next(batches)
    iterator = batches._iterator
    done = iterator._workers_done_event
    done._cond.acquire()  # as the worker does for a moment whenever it asks whether to go on
    start = time.monotonic()
    batches.close()
    del iterator, batches
    assert time.monotonic() - start < 3


def test_a_worker_killed_from_outside():
    with training_batches(Numbers(), [], Loader(batch_size=4, workers=2), 7) as batches:
        next(batches)
        os.kill(batches._workers[1].pid, signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(ResourceError, match=r"died \(SIGKILL\) while reading (file-\d+|nothing)"):
            for _ in range(50):
                next(batches)
        assert time.monotonic() - start < 20
        assert not any(process.is_alive() for process in batches._workers)


def test_workers_that_do_not_get_on_are_an_error(monkeypatch):
    monkeypatch.setattr("segtrain.loader.batches.STALLED_POLLS", 2)
    with pytest.raises(ResourceError, match=r"made no progress for 2 s, at file-5\.png"):
        take(10, workers=1, split=Numbers(slow=[5]))


def freeze(batches, count):
    for process in batches._workers[:count]:
        os.kill(process.pid, signal.SIGSTOP)


def exhaust(batches):
    for _ in range(1000):
        next(batches)


@pytest.mark.parametrize("count", [1, 3], ids=["one", "all"])
def test_frozen_workers_are_ended_and_named(monkeypatch, count):
    monkeypatch.setattr("segtrain.loader.frozen.FROZEN_S", 2)
    with training_batches(Numbers(), [], Loader(batch_size=4, workers=3), 7) as batches:
        next(batches)
        start = time.monotonic()
        freeze(batches, count)
        with pytest.raises(ResourceError, match=r"stopped by a signal \(SIGSTOP\) .* at .*kill -CONT"):
            exhaust(batches)
        assert 1.5 < time.monotonic() - start < 8
        assert not any(process.is_alive() for process in batches._workers)


@pytest.mark.slow
def test_a_worker_that_is_stopped_for_a_moment_goes_on(monkeypatch):
    monkeypatch.setattr("segtrain.loader.frozen.FROZEN_S", 3)
    with training_batches(Numbers(), [], Loader(batch_size=4, workers=1), 7) as batches:
        for _ in range(3):
            freeze(batches, 1)
            time.sleep(1.6)
            assert is_stopped(batches._workers[0].pid)
            os.kill(batches._workers[0].pid, signal.SIGCONT)
            time.sleep(0.1)
            assert not is_stopped(batches._workers[0].pid)
            time.sleep(0.6)
        for _ in range(20):
            next(batches)


def test_a_slow_worker_is_not_taken_for_a_frozen_one(monkeypatch):
    monkeypatch.setattr("segtrain.loader.frozen.FROZEN_S", 0.5)
    split = Numbers(slow=[5], seconds=3)
    assert len(take(6, workers=1, split=split)) == 6


class Asked:
    """Raises Interrupted once `at` is past."""

    def __init__(self, after_s):
        self.at = time.monotonic() + after_s

    def __call__(self):
        if time.monotonic() > self.at:
            raise Interrupted(signal.SIGTERM, "stopped")


@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["slow", "one frozen", "all frozen"])
def test_a_signal_is_obeyed_while_a_batch_is_waited_for(frozen):
    split = Numbers(slow=() if frozen else range(23))
    with training_batches(split, [], Loader(batch_size=4, workers=2), 7, interrupt=Asked(1.0)) as batches:
        if frozen:
            next(batches)
            freeze(batches, frozen)
        start = time.monotonic()
        with pytest.raises(Interrupted):
            exhaust(batches)
        assert time.monotonic() - start < 4
        assert not any(process.is_alive() for process in batches._workers)


def children():
    return multiprocessing.active_children()


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.EAGAIN, "lower loader.workers"),
        (errno.ENOMEM, "lower loader.workers"),
        (errno.EMFILE, "lower loader.workers"),
        (errno.ENOSPC, "--shm-size"),
    ],
    ids=errno.errorcode.get,
)
def test_workers_are_ended_when_one_of_them_cannot_be_started(monkeypatch, capfd, number, fix):
    before, begun = children(), []
    start_process = multiprocessing.context.Process.start

    def start(process):
        if len(begun) == 2:
            raise OSError(number, os.strerror(number))
        begun.append(process)
        start_process(process)

    monkeypatch.setattr(multiprocessing.context.Process, "start", start)
    begin = time.monotonic()
    with pytest.raises(ResourceError) as raised:
        training_batches(Numbers(), [], Loader(batch_size=4, workers=4), 7)
    assert "loader.workers=4" in str(raised.value) and fix in str(raised.value)
    del raised
    gc.collect()
    assert time.monotonic() - begin < 4 and len(begun) == 2
    assert children() == before and not any(process.is_alive() for process in begun)
    assert not capfd.readouterr().err


def test_a_limit_of_open_files_is_raised_or_named():
    code = """
import resource, sys
sys.path.insert(0, {tests!r})
from test_loader import Numbers, ResourceError, take
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 400))
take(20, workers=16)
assert 64 < resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 400
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    take(20, workers=16)
except ResourceError as error:
    print(error)
take(20, workers=2)
"""
    code = code.format(tests=str(Path(__file__).parent))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("too many open files: 16 workers need 160")
    assert "lower loader.workers" in ended.stdout and "ulimit -n" in ended.stdout


@pytest.mark.parametrize("section", ["loader", "evaluate"])
def test_the_errors_name_keys_that_the_command_has(monkeypatch, section):
    monkeypatch.setattr("segtrain.loader.batch._free_shared_memory", lambda: 1000)
    batches = (
        training_batches(Numbers(), [], Loader(batch_size=4, workers=1), 7)
        if section == "loader"
        else evaluation_batches(Numbers(), 4, 1)
    )
    with batches, pytest.raises(ResourceError, match=rf"set {section}\.workers=0, .* {section}\.batch_size"):
        next(batches)


def test_no_room_in_shared_memory(monkeypatch):
    monkeypatch.setattr("segtrain.loader.batch._free_shared_memory", lambda: 1000)
    with pytest.raises(ResourceError, match=r"shared memory \(/dev/shm\) is too small.*--shm-size"):
        take(2, workers=1)


def test_signals_to_the_group_do_not_reach_the_workers():
    with training_batches(Numbers(), [], Loader(batch_size=4, workers=2), 7) as batches:
        next(batches)
        for process in batches._workers:
            os.kill(process.pid, signal.SIGINT)
            os.kill(process.pid, signal.SIGTERM)
        for _ in range(20):
            next(batches)


def test_closing_ends_the_workers_and_the_iterator():
    batches = training_batches(Numbers(slow=[5]), [], Loader(batch_size=4, workers=2), 7)
    workers = batches._workers
    assert len(workers) == 2 and signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, None)
    start = time.monotonic()
    batches.close()
    batches.close()
    assert time.monotonic() - start < 3 and not any(process.is_alive() for process in workers)
    with pytest.raises(StopIteration):
        next(batches)


CHILD = """
import sys, time
sys.path.insert(0, {tests!r})
from test_loader import Numbers
from segtrain.loader.loader import training_batches
from segtrain.settings import Loader
batches = training_batches(Numbers(), [], Loader(batch_size=4, workers=2), 7)
next(batches)
print(*[process.pid for process in batches._workers], flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["time.sleep(60)", "sys.exit(0)", "1 / 0"])
def test_no_worker_outlives_its_parent(then):
    code = CHILD.format(tests=str(Path(__file__).parent), then=then)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    if "sleep" in then:
        parent.kill()
    parent.wait(timeout=20)
    parent.stdout.close()
    end = time.monotonic() + 15
    while any(_alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid):
    """Running; a zombie that nobody has fetched yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_gives_every_sample_once_in_batches_of_one_size(workers):
    split = Numbers(sizes=((6, 8), (5, 5), (6, 8)))
    batches = list(evaluation_batches(split, 4, workers, ignore_index=IGNORE))
    seen = [name for batch in batches for name in batch.names[: batch.count]]
    assert sorted(seen) == sorted(split.name(index) for index in range(23))
    assert [tuple(batch.images.shape[2:]) for batch in batches] == [(6, 8)] * 4 + [(5, 5)] * 2
    for batch in batches:
        assert len(batch.images) == len(batch.names) == 4
        assert (batch.targets[batch.count :] == IGNORE).all() and (
            batch.targets[: batch.count] != IGNORE
        ).all()


def test_evaluation_of_few_images_with_many_workers():
    assert [batch.count for batch in evaluation_batches(Numbers(count=3), 2, 5)] == [2, 1]


def test_different_sizes_in_one_batch_name_the_option():
    with pytest.raises(ConfigError, match=r"set augmentation\.warp\.size, or loader\.batch_size=1"):
        take(3, split=Numbers(sizes=((6, 8), (8, 6))))
    ops = AUGMENTATION.build_each({"warp": {"size": 16}})
    with training_batches(
        Numbers(sizes=((6, 8), (8, 6))), ops, Loader(batch_size=4, workers=0), 7
    ) as batches:
        assert next(batches).images.shape == (4, 3, 16, 16)


def test_different_types_in_one_batch_name_another_remedy():
    eight, sixteen = (
        Sample(np.zeros((4, 4, 3), dtype), np.zeros((4, 4), np.uint8), name=dtype)
        for dtype in ("uint8", "uint16")
    )
    with pytest.raises(ConfigError, match=r"uint8 .*uint16 .*save all images with as many bits"):
        collated([eight, sixteen], [0, 1])
