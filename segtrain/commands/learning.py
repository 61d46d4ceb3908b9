"""What the training loop works with, built and checked before its first step."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from segtrain import checkpoint as checkpoints
from segtrain.augmentation import AUGMENTATION, output_size
from segtrain.commands.parts import Parts
from segtrain.data.stats import frequency
from segtrain.errors import ConfigError
from segtrain.loss import LOSS
from segtrain.model.parts.norm import check_batch, set_momentum
from segtrain.model.parts.sides import check_sides
from segtrain.optimizer import OPTIMIZER
from segtrain.schedule import SCHEDULE
from segtrain.settings import Loader, Trainer
from segtrain.train.compiled import compiled
from segtrain.train.memory_format import faster_memory_format
from segtrain.train.state import new_state
from segtrain.train.step import MEMORY_FORMATS, Learning


def augmentation_and_loss(config, parts: Parts, split):
    """What needs to know how often classes occur; they are counted only if somebody asks."""
    facts = parts.facts
    target = parts.task.target
    counted = functools.cache(lambda: frequency(split, facts.num_classes, facts.ignore_index))
    if not target.classes:
        counted = functools.partial(_refuse_frequency, parts.task.name)
    runtime = {
        "num_classes": facts.num_classes,
        "ignore_index": facts.ignore_index,
        "class_frequency": counted,
        "facts": facts,
        "target": target,
    }
    fill = tuple(round(255 * mean) for mean in facts.normalisation.mean)
    return AUGMENTATION.build_each(config["augmentation"], fill=fill, **runtime), LOSS.build(
        config["loss"], **runtime
    )


def _refuse_frequency(task: str):
    raise ConfigError(
        f"class weights and class-wise draws need classes, and task={task} has none; leave them out"
    )


def with_memory_format(config: dict, resumed: Path | None, parts: Parts, loss, shape, device, split) -> dict:
    """The config with trainer.memory_format=auto replaced by its answer: that of the run's start if it goes
    on."""
    if config["trainer"]["memory_format"] != "auto":
        return config
    if resumed is not None:
        answer = checkpoints.describe(resumed)["config"]["trainer"]["memory_format"]
    else:
        answer = faster_memory_format(
            parts.model, parts.facts.normalisation, loss, shape, split[0].target, device
        )
    return {**config, "trainer": {**config["trainer"], "memory_format": answer}}


def build_learning(config, parts: Parts, settings: Trainer, steps: int, loss, device):
    """The step's tools and the state before the first step."""
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
        schedule=SCHEDULE.build(config["schedule"], steps=steps),
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
    """(B, K, H, W) of a micro-batch; refuses what would only fail in the middle of a run: crops of different
    sizes, a batch that cannot be split, batch-norm on single values."""
    if loader.batch_size < 1 or accumulate < 1 or loader.batch_size < accumulate:
        raise ConfigError(
            f"loader.batch_size={loader.batch_size} cannot be split into trainer.accumulate={accumulate} "
            f"parts of an image or more"
        )
    size = output_size(ops)
    height, width = size or split.size(0)
    if size is None and loader.batch_size > 1:
        sizes = {split.size(i) for i in range(min(len(split), 64))}
        if len(sizes) > 1:
            shown = ", ".join(f"{h}x{w}" for h, w in sorted(sizes)[:3])
            raise ConfigError(
                f"the images have different sizes ({shown} …) and cannot share a batch; set "
                f"augmentation.warp.size=256"
            )
    count = loader.batch_size // accumulate
    check_sides(parts.model, height, width)
    check_batch(parts.model, count, parts.facts.channels, height, width)
    return count, parts.facts.channels, height, width
