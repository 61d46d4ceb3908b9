"""Batch normalisation: freezing it, recomputing its statistics, and batches that it cannot be trained on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segtrain.errors import ConfigError


def freeze_batch_norm(net: nn.Module) -> nn.Module:
    """Freezes every batch normalisation of `net` and returns `net`: running statistics and affine parameters
    no longer change, not even after `net.train()`.

    Call it after a conversion to synchronised batch normalisation, which makes new modules.
    """
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.requires_grad_(False)
            module.train = _stay_in_evaluation.__get__(module)
            module.train()
    return net


def unfreeze_batch_norm(norm: nn.Module) -> None:
    """Undoes `freeze_batch_norm` for one module, which then trains."""
    del norm.train
    norm.train()


def has_running_statistics(module: nn.Module) -> bool:
    """Whether a module is a batch normalisation whose statistics change in training."""
    return isinstance(module, _BatchNorm) and not is_frozen(module)


def set_momentum(net: nn.Module, momentum: float) -> nn.Module:
    """Sets the momentum of every batch normalisation of `net` and returns `net`: the share by which running
    statistics move towards those of each batch (TensorFlow's decay is 1 - momentum)."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = momentum
    return net


def is_frozen(module: nn.Module) -> bool:
    """Whether `freeze_batch_norm` fixed this module."""
    return "train" in vars(module)


def statistics_of(net: nn.Module) -> dict[str, torch.Tensor]:
    """The running statistics of every batch normalisation that is not frozen, by their names in the state of
    `net`."""
    norms = ((name, module) for name, module in net.named_modules() if has_running_statistics(module))
    return {
        f"{name}.{key}": buffer
        for name, module in norms
        for key, buffer in module.named_buffers(recurse=False)
    }


@torch.no_grad()
def recompute_statistics(net: nn.Module, inputs: Iterable[torch.Tensor]) -> None:
    """Replaces the running statistics by their average over forward passes on `inputs`, at the present
    weights of `net`.

    All other modules are in evaluation mode, so the statistics are those of the network as it is used.
    (torch.optim.swa_utils.update_bn would apply dropout as in training and reset the statistics of frozen
    layers.)
    """
    modes = [(module, module.training) for module in net.modules()]
    norms = [module for module in net.modules() if has_running_statistics(module)]
    momenta = [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all batches
        norm.train()
    try:
        for batch in inputs:
            net(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode


def _stay_in_evaluation(module: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(module, False)


def check_batch(net: nn.Module, batch_size: int, channels: int, height: int, width: int) -> None:
    """ConfigError if some batch normalisation would get one value per channel from batches of this shape,
    which is its own mean: it cannot be trained on that.

    batch_size: images of one micro-batch in one process. The network is not changed and nothing is computed:
    the forward pass runs on tensors without storage.
    """
    if batch_size > 1:
        return
    modes = [(module, module.training) for module in net.modules()]
    seen: list[tuple[str, tuple[int, ...]]] = []
    hooks = [
        module.register_forward_pre_hook(
            lambda module, inputs, name=name: seen.append((name, tuple(inputs[0].shape)))
        )
        for name, module in net.named_modules()
        if has_running_statistics(module)
    ]
    try:
        net.train()
        tensors = {
            name: tensor.to("meta") for name, tensor in (*net.named_parameters(), *net.named_buffers())
        }
        torch.func.functional_call(
            net, tensors, (torch.empty(batch_size, channels, height, width, device="meta"),)
        )
    except ValueError as error:
        if not seen or "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(_too_small(net, batch_size, height, width, *seen[-1])) from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode


def _too_small(
    net: nn.Module, batch_size: int, height: int, width: int, name: str, shape: tuple[int, ...]
) -> str:
    pooled = net.built_with().get("image_pooling", False)
    return (
        f"loader.batch_size leaves {batch_size} image of {height}x{width} px per process and micro-batch: "
        f"batch normalisation {name} gets "
        f"{'x'.join(map(str, shape))} values, one per channel, and cannot be trained on them; make it 2 "
        f"images or more "
        f"(loader.batch_size, trainer.accumulate), set "
        f"trainer.freeze_batch_norm=true{', model.image_pooling=false' if pooled else ''}"
        f"{'' if pooled else ' or take larger crops'}"
    )
