"""Augmentation, loss, optimizers, schedule and state of a training, built and checked before the first
step."""

from __future__ import annotations

from collections.abc import Callable

import torch

from segtrain.augmentation import output_size
from segtrain.commands.parts import Parts
from segtrain.commands.runtime import augmentation, draws, runtime_of
from segtrain.errors import ConfigError
from segtrain.loader.usable import first_usable, training_headers
from segtrain.loss import LOSS
from segtrain.model.parts.norm import check_batch, set_momentum
from segtrain.model.parts.sides import check_sides
from segtrain.optimizer import OPTIMIZER
from segtrain.schedule import SCHEDULE
from segtrain.settings import Loader, Trainer
from segtrain.train.compiled import compiled
from segtrain.train.memory_format import MEMORY_FORMATS, faster_memory_format
from segtrain.train.state import new_state
from segtrain.train.step import Learning


def augmentation_loss_and_draws(config, parts: Parts, split):
    """The augmentation operations, the loss and the draws of the sampler. The masks are counted once, and
    only if one of these asks for class frequencies."""
    runtime = runtime_of(parts.task, parts.facts, split, Loader(**config["loader"]).skip_bad)
    ops = augmentation(config["augmentation"], parts.facts, runtime)
    return ops, LOSS.build(config["loss"], **runtime), draws(config["sampler"], runtime)


def memory_format_probe(parts: Parts, loss, shape, split, device, skip_bad: bool) -> Callable[[], str]:
    """A function that times the network in both memory formats on micro-batches of `shape` (B, K, H, W) and
    returns the faster one."""
    normalise = parts.facts.normalisation

    def faster() -> str:
        target = first_usable(split, skip_bad).target
        return faster_memory_format(parts.model, normalise, loss, shape, target, device)

    return faster


def build_learning(config, parts: Parts, settings: Trainer, loss, device):
    """The `Learning` that each step uses, and the run's state before the first step."""
    model = parts.model
    if settings.batch_norm_momentum is not None:
        set_momentum(model, settings.batch_norm_momentum)
    model.to(device, memory_format=MEMORY_FORMATS[settings.memory_format])
    networks = {name: network.to(device) for name, network in parts.task.networks(parts.facts).items()}
    optimizers = {
        name: _optimizer(parts.task.optimizers.get(name, config["optimizer"]), network)
        for name, network in {"network": model, **networks}.items()
    }
    state = new_state(model, optimizers, settings, device, networks)
    learning = Learning(
        loss=loss,
        normalise=parts.facts.normalisation,
        schedule=SCHEDULE.build(config["schedule"], steps=settings.steps),
        settings=settings,
        device=device,
        forward=compiled(model, settings.compile) if settings.compile else None,
        step=parts.task.step,
    )
    return learning, state


def _optimizer(config, network) -> torch.optim.Optimizer:
    optimizer = OPTIMIZER.build(config, network=network)
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]  # what the schedule's factor multiplies
    return optimizer


def batch_shape(parts: Parts, ops, split, accumulate: int, loader: Loader) -> tuple[int, int, int, int]:
    """Shape (B, K, H, W) of a micro-batch. ConfigError for what would fail during training: images of
    different sizes in a batch, a batch that cannot be split into micro-batches, batch normalisation over a
    single value."""
    if loader.batch_size < accumulate:
        raise ConfigError(
            f"loader.batch_size={loader.batch_size} cannot be split into trainer.accumulate={accumulate} "
            f"parts of an image or more"
        )
    size = output_size(ops)
    headers = training_headers(split, loader.skip_bad)
    sizes = sorted({(header.height, header.width) for header in headers})
    height, width = size or headers[0][:2]
    if size is None and loader.batch_size > 1 and len(sizes) > 1:
        shown = ", ".join(f"{h}x{w}" for h, w in sizes[:3])
        raise ConfigError(
            f"the images have different sizes ({shown} …) and cannot share a batch; set "
            f"augmentation.warp.size=256"
        )
    count = loader.batch_size // accumulate
    check_sides(parts.model, height, width)
    check_batch(parts.model, count, parts.facts.channels, height, width)
    return count, parts.facts.channels, height, width
