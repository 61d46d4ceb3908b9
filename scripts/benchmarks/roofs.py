"""What a device reaches with one large matrix product and with one large copy, and how long a step would take
at these two roofs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

WITHOUT_TRAFFIC = {"_unsafe_view", "_reshape_alias", "lift_fresh", "_local_scalar_dense"}
"""Names in aten of operations beside the views, and beside those that only allocate, that move no data."""


@dataclass(frozen=True)
class Roofs:
    """flops: operations a second of a matrix product, a multiplication and an addition counted as two. bytes:
    read and written a second by a copy."""

    flops: float
    bytes: float


def measured_roofs(device: torch.device, dtype: torch.dtype, quick: bool) -> Roofs:
    """The medians of several blocks. Of the copy, the largest tensor that is tried; caches do not hold it."""
    small = device.type == "cpu" or quick
    side, size_bytes, blocks = (1024, 64 << 20, 3) if small else (8192, 1 << 30, 10)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.ones(size_bytes // 4, device=device)
    target = torch.empty_like(source)
    product_s = median(blocks_of(lambda: torch.mm(a, b), device, 5, blocks))
    copy_s = median(blocks_of(lambda: target.copy_(source), device, 5, blocks))
    return Roofs(flops=2 * side**3 / product_s, bytes=2 * source.nbytes / copy_s)


def blocks_of(call: Callable, device: torch.device, calls: int, blocks: int) -> list[float]:
    """Seconds of a call, a number for each block of `calls`, after a block that is not counted. The device is
    waited for at the end of a block only."""
    return [timed(call, device, calls) for _ in range(blocks + 1)][1:]


def timed(call: Callable, device: torch.device, calls: int) -> float:
    """Seconds of one of `calls` calls in a row."""
    wait_for(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    wait_for(device)
    return (time.perf_counter() - start) / calls


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Work(TorchDispatchMode):
    """A context that counts what is computed in it on a device. flops: of convolutions and matrix products,
    by operation, with the formulas of torch.utils.flop_counter. bytes: that all other operations read and
    write, by operation, each of its tensors once."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device
        self.flops: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet, name = func._overloadpacket, func._overloadpacket.__name__
        if packet in flop_registry:
            self.flops[name] += flop_registry[packet](*args, **kwargs, out_val=out)
        elif not (func.is_view or name in WITHOUT_TRAFFIC or "empty" in name):
            written = [*tree_leaves(out), *_mutated(func, args, kwargs)]
            self.bytes[name] += self._bytes([*tree_leaves((args, kwargs))]) + self._bytes(written)
        return out

    def _bytes(self, values: list) -> int:
        """Of the distinct tensors among the values. An expanded tensor is read once."""
        there = {id(one): one for one in values if isinstance(one, Tensor) and one.device == self.device}
        return sum(min(one.nbytes, one.untyped_storage().nbytes()) for one in there.values())

    def seconds(self, roofs: Roofs) -> tuple[float, float]:
        """(seconds of the flops, seconds of the bytes) at the roofs: together the un-fused roof, since
        operations that are not fused run one after another."""
        return self.flops.total() / roofs.flops, self.bytes.total() / roofs.bytes

    def plain(self, largest: int = 12) -> dict:
        """The counts of the largest operations as JSON values."""
        return {
            "flops": self.flops.total(),
            "bytes": self.bytes.total(),
            "flops_of": dict(self.flops.most_common(largest)),
            "bytes_of": dict(self.bytes.most_common(largest)),
        }


def _mutated(func, args: tuple, kwargs: dict) -> Iterator:
    """The tensors that an in-place operation writes; most return them too."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tree_leaves(args[place] if place < len(args) else kwargs.get(argument.name))
