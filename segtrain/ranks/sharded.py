"""Tensors and networks that FSDP has sharded over the ranks. Others pass through unchanged.

torch's FSDP takes half a second to import; as long as nothing has imported it, nothing is sharded.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from segtrain import ranks


def parts_of(network: nn.Module) -> list:
    """The modules of a network that are gathered by themselves, which are FSDPModules."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None or ranks.world_size() == 1:
        return []
    return [one for one in network.modules() if isinstance(one, fsdp.FSDPModule)]


def synchronise(network: nn.Module, wanted: bool) -> None:
    """Whether the next backward pass sums the gradients over the ranks: with the last micro-batch."""
    for part in parts_of(network):
        part.set_requires_gradient_sync(wanted, recurse=False)


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


def is_cut(value: Any) -> bool:
    """Whether a value is a tensor that is cut over the ranks."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def whole(value: Any) -> Any:
    """Nested mappings and lists with each sharded tensor as a whole one. All ranks call it."""
    if is_cut(value):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: whole(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(whole(one) for one in value)
    return value


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a sharded tensor, without a copy; any other tensor as it is."""
    return tensor.to_local() if is_cut(tensor) else tensor
