"""`trainer.strategy=fsdp`: weights, gradients and optimizer state are cut over the ranks (FSDP2, Zhao et al.
2023), for networks that do not fit into one GPU.

A run is built, restored and initialised whole, on the CPU, and then sharded. Checkpoints hold whole tensors,
so they do not depend on the number of ranks, and are those of every other run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from segtrain import ranks
from segtrain.errors import ConfigError
from segtrain.ranks.sharded import parts_of
from segtrain.settings import Trainer
from segtrain.train.memory_format import MEMORY_FORMATS
from segtrain.train.state import RunState

UNIT = 1 << 20
"""Parameters of a layer that is gathered by itself, at least."""


def is_sharded(settings: Trainer) -> bool:
    """Whether the run is sharded: in one process there is nothing to cut. ConfigError for settings that FSDP
    cannot train with."""
    if settings.strategy != "fsdp":
        return False
    for key, bad in (("amp", settings.amp == "fp16"), ("compile", settings.compile is not None)):
        if bad:
            raise ConfigError(
                f"trainer.strategy=fsdp does not go with trainer.{key}={getattr(settings, key)}; use "
                f"{'trainer.amp=bf16' if key == 'amp' else 'trainer.compile=null'}, or trainer.strategy=ddp"
            )
    return ranks.world_size() > 1


def place(network: nn.Module, settings: Trainer, device: torch.device) -> None:
    """Moves a network that is to be trained to the device, in the memory format of the run. One that will be
    sharded stays on the CPU, as one GPU may not hold it whole."""
    device = torch.device("cpu") if is_sharded(settings) else device
    network.to(device, memory_format=MEMORY_FORMATS[settings.memory_format])


def shard(state: RunState, device: torch.device, optimizers: Callable[[], dict]) -> None:
    """Shards the networks of a state, its optimizers and its EMA over the ranks, and moves them to the
    device. optimizers(): makes the optimizers of the networks anew, by name."""
    from torch.distributed.device_mesh import init_device_mesh

    before = {name: optimizer.state_dict() for name, optimizer in state.optimizers.items()}
    mesh = init_device_mesh(device.type, (ranks.world_size(),))
    for network in (state.model, *state.networks.values(), *([] if state.ema is None else [state.ema])):
        _shard_network(network, mesh)
        network.to(device)
    state.optimizers.clear()
    state.optimizers.update(optimizers())
    for name, optimizer in state.optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        cut = {
            index: {key: _cut_like(value, parameters[index]) for key, value in one.items()}
            for index, one in before[name]["state"].items()
        }
        optimizer.load_state_dict({**before[name], "state": cut})
        for group in optimizer.param_groups:  # torch's fused kernels do not take every sharded tensor
            if "fused" in group:
                group["fused"] = False


def _shard_network(network: nn.Module, mesh) -> None:
    """Cuts each layer of UNIT parameters or more by itself, and the rest of the network together. Layers, not
    blocks: of a block, a network may call the layers and not the block."""
    from torch.distributed.fsdp import fully_shard

    for module in network.modules():
        if not list(module.children()) and sum(p.numel() for p in module.parameters()) >= UNIT:
            fully_shard(module, mesh=mesh)
    fully_shard(network, mesh=mesh)
    for part in parts_of(network):
        # The loss is divided by the weight of all ranks, so gradients are summed, not averaged.
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)


def _cut_like(value: Any, parameter: nn.Parameter) -> Any:
    """A tensor of the optimizer's state cut as its parameter is; a value of another shape as it is."""
    from torch.distributed.tensor import distribute_tensor

    if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
