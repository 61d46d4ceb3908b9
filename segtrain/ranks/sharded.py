"""Tensors and networks that FSDP has cut over the ranks. Others pass through unchanged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def parts_of(network: nn.Module) -> list[FSDPModule]:
    """The modules of a network that are gathered by themselves."""
    return [module for module in network.modules() if isinstance(module, FSDPModule)]


def synchronise(network: nn.Module, wanted: bool) -> None:
    """Whether the next backward pass sums the gradients over the ranks: with the last micro-batch."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(wanted)


@contextlib.contextmanager
def unsharded(network: nn.Module) -> Iterator[None]:
    """A context in which the network is whole on each rank: in an evaluation, ranks have different numbers of
    batches, and a sharded network needs all ranks for each of them."""
    parts = parts_of(network)
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def whole(value: Any) -> Any:
    """Nested mappings and lists with each sharded tensor as a whole one. All ranks call it."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: whole(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(whole(one) for one in value)
    return value


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a sharded tensor, without a copy; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_cut(tensor: torch.Tensor) -> bool:
    """Whether a tensor is cut over the ranks."""
    return isinstance(tensor, DTensor)
