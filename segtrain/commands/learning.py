"""Optimizers, schedule and state of a training, built and checked before the first step; and what its errors
mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from segtrain import ranks
from segtrain.augmentation import output_size
from segtrain.commands.parts import Parts
from segtrain.errors import ConfigError, ResourceError
from segtrain.loader.usable import training_headers
from segtrain.model.parts.norm import check_batch, set_momentum
from segtrain.model.parts.sides import check_sides
from segtrain.optimizer import OPTIMIZER
from segtrain.schedule import SCHEDULE
from segtrain.settings import Loader, Trainer
from segtrain.train.compiled import compile_errors, compiled
from segtrain.train.freezing import freezing_of
from segtrain.train.sharding import is_sharded, place, shard
from segtrain.train.state import RunState, new_state
from segtrain.train.step import Learning


def build_learning(config, parts: Parts, settings: Trainer, loss, device):
    """The `Learning` that each step uses, and the run's state before the first step."""
    model = parts.model
    if _synchronises_batch_norm(settings, config["loader"]["batch_size"], device):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if settings.batch_norm_momentum is not None:
        set_momentum(model, settings.batch_norm_momentum)
    freezing = freezing_of(model, settings)
    networks = parts.task.networks(parts.facts)
    for network in (model, *networks.values()):
        place(network, settings, device)
    optimizers = _optimizers(config, parts, {"network": model, **networks})
    state = new_state(model, optimizers, settings, device, networks)
    learning = Learning(
        loss=loss,
        normalise=parts.facts.normalisation,
        schedule=SCHEDULE.build(config["schedule"], steps=settings.steps),
        settings=settings,
        device=device,
        forward=compiled(model, settings.compile) if settings.compile else None,
        step=parts.task.step,
        freezing=freezing,
        batch_size=config["loader"]["batch_size"],
    )
    return learning, state


FEW_IMAGES = 8
"""Below so many images at a time, the statistics of batch-norm are noisy enough to be taken over all GPUs."""


def _synchronises_batch_norm(settings: Trainer, batch_size: int, device: torch.device) -> bool:
    """Whether batch-norm is over the images of all ranks; ConfigError if that is asked for and cannot be."""
    if settings.sync_batch_norm and device.type != "cuda":
        raise ConfigError(
            f"trainer.sync_batch_norm=true needs GPUs, and device={device}; use trainer.sync_batch_norm=null"
        )
    if ranks.world_size() == 1 or device.type != "cuda":
        return False
    few = batch_size / (settings.accumulate * ranks.world_size()) < FEW_IMAGES
    return few if settings.sync_batch_norm is None else settings.sync_batch_norm


def shard_if_asked(config, parts: Parts, settings: Trainer, state: RunState, device) -> None:
    """Cuts the state of a run, which has been restored or initialised whole, over the ranks."""
    if is_sharded(settings):
        networks = {"network": state.model, **state.networks}
        shard(state, device, lambda: _optimizers(config, parts, networks))


def _optimizers(config, parts: Parts, networks: dict) -> dict[str, torch.optim.Optimizer]:
    return {
        name: _optimizer(parts.task.optimizers.get(name, config["optimizer"]), network)
        for name, network in networks.items()
    }


def _optimizer(config, network) -> torch.optim.Optimizer:
    optimizer = OPTIMIZER.build(config, network=network)
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]  # what the schedule's factor multiplies
    return optimizer


def batch_shape(parts: Parts, ops, split, accumulate: int, loader: Loader) -> tuple[int, int, int, int]:
    """Shape (B, K, H, W) of a micro-batch. ConfigError for what would fail during training: images of
    different sizes in a batch, a batch that cannot be split into micro-batches, batch normalisation over a
    single value."""
    parts_of_batch = accumulate * ranks.world_size()
    if loader.batch_size < parts_of_batch:
        on_ranks = f" on {ranks.world_size()} ranks" if ranks.world_size() > 1 else ""
        raise ConfigError(
            f"loader.batch_size={loader.batch_size} cannot be split into trainer.accumulate={accumulate} "
            f"parts of an image or more{on_ranks}"
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
    count = loader.batch_size // parts_of_batch
    check_sides(parts.model, height, width)
    check_batch(parts.model, count, parts.facts.channels, height, width)
    return count, parts.facts.channels, height, width


@contextlib.contextmanager
def step_errors(settings: Trainer, loader: Loader, device: torch.device) -> Iterator[None]:
    """Raises ResourceError where the memory is too small for a step, and what `compile_errors` does."""
    try:
        with compile_errors(settings.compile):
            yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # The CPU allocator raises a plain RuntimeError.
        of_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not of_memory and "can't allocate memory" not in str(error):
            raise
        raise ResourceError(_too_large(settings, loader, device)) from error


def _too_large(settings: Trainer, loader: Loader, device) -> str:
    parts = min(loader.batch_size, 2 * settings.accumulate)
    return (
        f"{device} has too little memory for {loader.batch_size // settings.accumulate} images at a time; "
        f"use trainer.accumulate={parts} "
        f"(then loader.batch_size={loader.batch_size} goes {loader.batch_size // parts} at a time), "
        f"smaller crops or trainer.amp=bf16"
    )
