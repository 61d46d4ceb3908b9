"""Collective communication between the processes of a command. With one process, every function returns what
it was given.

The processes ("ranks") are started by torchrun. All of them call the functions of this module in the same
order. A rank that raises, is killed or does not answer ends all others: each wait has a limit.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.ranks.faults import await_main, wait, work_begins
from segtrain.run.rank import launched

T = TypeVar("T")

LONG_S = 1800.0
"""Seconds that a rank waits for work that rank 0 does alone: a checkpoint, a probe."""
BUCKET_BYTES = 64 << 20
"""Gradients are summed in buffers of about this size."""

_alone = False


def world_size() -> int:
    """The number of ranks."""
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


def rank() -> int:
    """The rank of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() and not _alone else 0


def is_main() -> bool:
    """Whether this is rank 0, the one that writes."""
    return rank() == 0


@contextlib.contextmanager
def process_group(device: str, ready: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A context in which the ranks that torchrun started exchange tensors, by gloo, and on GPUs by NCCL.

    device: of the config; ConfigError for a single GPU. Ranks above 0 wait for rank 0 to enter. ready: called
    while they wait; it raises to end that.
    """
    place = launched()
    if place.size == 1 or dist.is_initialized():
        yield
        return
    if device.startswith("cuda:"):
        raise ConfigError(
            f"device={device} is one GPU, and torchrun started {place.size} processes, which take one each; "
            "use device=cuda, and choose the GPUs by CUDA_VISIBLE_DEVICES"
        )
    store = await_main(ready)
    on_gpus = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    dist.init_process_group(
        backend,
        store=store,
        rank=place.rank,
        world_size=place.size,
        timeout=datetime.timedelta(seconds=LONG_S),
    )
    work_begins()
    try:
        yield
        all_gather(None, LONG_S)  # no rank leaves, and lets torchrun end the others, before all are done
    finally:
        _left()


def _left() -> None:
    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()


def refuse(what: str) -> None:
    """ConfigError if there are several ranks. what: runs in one process, as a sentence."""
    if world_size() > 1:
        raise ConfigError(f"{what}, and torchrun started {world_size()}; start it without torchrun")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """A context in which this process is the only rank."""
    global _alone
    outer, _alone = _alone, True
    try:
        yield
    finally:
        _alone = outer


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The tensor, which becomes the sum over all ranks."""
    if world_size() > 1:
        wait(dist.all_reduce(tensor, async_op=True), tensor)
    return tensor


def all_reduce_max(number: int) -> int:
    """The largest of the ranks' numbers."""
    if world_size() == 1:
        return number
    numbers = torch.tensor([number], dtype=torch.int64)
    wait(dist.all_reduce(numbers, dist.ReduceOp.MAX, async_op=True), numbers)
    return int(numbers)


def all_gather(value: T, limit: float | None = None) -> list[T]:
    """The values of all ranks, in the order of the ranks: tensors and plain Python only, since what another
    process sends is read as a checkpoint is and never runs. limit: seconds to wait for the others."""
    if world_size() == 1:
        return [value]
    own, lengths = _written(value, limit)
    parts = [torch.empty_like(own) for _ in lengths]
    wait(dist.all_gather(parts, own, async_op=True), own)
    return _read(parts, lengths)


def gather(value: T) -> list[T] | None:
    """As `all_gather`, on rank 0; None on the others, which neither receive nor keep anything."""
    if world_size() == 1:
        return [value]
    own, lengths = _written(value)
    parts = [torch.empty_like(own) for _ in lengths] if is_main() else None
    wait(dist.gather(own, parts, dst=0, async_op=True), own)
    return None if parts is None else _read(parts, lengths)


def _written(value: Any, limit: float | None = None) -> tuple[Tensor, list[int]]:
    """The bytes of a value, filled up to the largest number among the ranks, and the ranks' numbers."""
    written = io.BytesIO()
    torch.save(value, written)
    own = torch.frombuffer(bytearray(written.getvalue()), dtype=torch.uint8)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    wait(dist.all_gather(lengths, torch.tensor([len(own)]), async_op=True), own, limit)
    numbers = [int(length) for length in lengths]
    return torch.cat([own, own.new_zeros(max(numbers) - len(own))]), numbers


def _read(parts: list[Tensor], lengths: list[int]) -> list:
    read = (io.BytesIO(part[:length].numpy().tobytes()) for part, length in zip(parts, lengths, strict=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Validating sparse tensor invariants")
        return [torch.load(one, weights_only=True) for one in read]


def from_main(make: Callable[[], T]) -> T:
    """What `make()` returns on rank 0, which works alone meanwhile."""
    if world_size() == 1:
        return make()
    made = None
    if is_main():
        with alone():
            made = make()
    return all_gather(made, LONG_S)[0]


def main_first(make: Callable[[], T]) -> T:
    """`make()` on each rank, on rank 0 before the others: it leaves files that they find."""
    if is_main():
        with alone():
            made = make()
    all_gather(None, LONG_S)
    return made if is_main() else make()


def in_step(items: Iterable[T], meet: Callable[[], None]) -> Iterator[T]:
    """The items of this rank. `meet()` is called after each of them; a rank with fewer items than another
    calls it as often."""
    iterator = iter(items)
    if world_size() == 1:
        for item in iterator:
            yield item
            meet()
        return
    item = next(iterator, None)
    while all_reduce_max(int(item is not None)):
        if item is not None:
            yield item
        meet()
        item = next(iterator, None)


def interleaved(lists: Sequence[Sequence[T]]) -> list[T]:
    """The elements of which rank r holds every W-th from r on (W: the world size), in their order."""
    longest = max(map(len, lists), default=0)
    return [one[place] for place in range(longest) for one in lists if place < len(one)]


def part_of(count: int) -> range:
    """The places, of `count` in a row, that are this rank's; the ranks' numbers differ by one at most."""
    bounds = [count * r // world_size() for r in (rank(), rank() + 1)]
    return range(*bounds)


@torch.no_grad()
def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Makes the gradient of each parameter its sum over all ranks. A parameter that this rank's part of the
    batch did not use, and another rank's did, counts with zeros; one that no rank used keeps None."""
    if world_size() == 1:
        return
    used = torch.tensor([one.grad is not None for one in parameters], dtype=torch.uint8)
    wait(dist.all_reduce(used, dist.ReduceOp.MAX, async_op=True), used)
    summed = [one for one, somewhere in zip(parameters, used.tolist(), strict=True) if somewhere]
    for parameter in summed:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _sum_each([parameter.grad for parameter in summed])


@torch.no_grad()
def _sum_each(tensors: Sequence[Tensor]) -> None:
    """Makes each tensor its sum over all ranks, in place, many of them at a time."""
    buckets: list[list[Tensor]] = []
    room: dict[torch.dtype, int] = {}  # of the last bucket, in bytes
    for tensor in tensors:
        if room.get(tensor.dtype, 0) < tensor.nbytes:
            buckets.append([])
            room = {tensor.dtype: BUCKET_BYTES}
        buckets[-1].append(tensor)
        room[tensor.dtype] -= tensor.nbytes
    for bucket in buckets:
        flat = all_reduce_sum(torch.cat([tensor.reshape(-1) for tensor in bucket]))
        parts = flat.split([tensor.numel() for tensor in bucket])
        torch._foreach_copy_(bucket, [part.view(one.shape) for part, one in zip(parts, bucket, strict=True)])


@torch.no_grad()
def all_reduce_mean(tensors: Sequence[Tensor]) -> None:
    """Makes each floating-point tensor the mean over all ranks, in place; others stay as they are."""
    floats = [one for one in tensors if one.is_floating_point()]
    if world_size() > 1 and floats:
        _sum_each(floats)
        torch._foreach_div_(floats, world_size())


class SharedStop:
    """A `segtrain.run.stop.Stop` of all ranks: a signal to one of them asks all to end at the same safe
    point, which is the next call of `agree`."""

    def __init__(self, own):
        self._own = own
        self.requested: int | None = None

    def agree(self) -> None:
        self.requested = all_reduce_max(self._own.requested or 0) or None
        if self.requested is not None:
            self._own.requested = self.requested

    def raise_if_requested(self, message: str | None = None) -> None:
        if self.requested is not None:
            self._own.raise_if_requested(message)

    def at_once(self):
        return self._own.at_once()


def shared(stop) -> Any:
    """The stop of all ranks."""
    return stop if world_size() == 1 else SharedStop(stop)
