"""What a training learns by: augmentation, loss and draws, and their runtime keywords."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from segtrain.augmentation import AUGMENTATION
from segtrain.commands.parts import Parts
from segtrain.data.survey.stats import class_pixels, frequency_of
from segtrain.errors import ConfigError
from segtrain.loader.draws import Draws, draws_of
from segtrain.loss import LOSS
from segtrain.predictor.mirroring import warn_of_mirroring
from segtrain.sample import Facts
from segtrain.settings import Loader, Sampler


def augmentation(config, facts: Facts, runtime: Mapping) -> list:
    """The augmentation operations of a config, in order. facts: with the normalisation of the network, whose
    mean fills pixels outside the image."""
    fill = tuple(round(255 * mean) for mean in facts.normalisation.mean)
    return AUGMENTATION.build_each(config, fill=fill, **runtime)


def draws(config: Mapping, runtime: Mapping) -> Draws:
    """How often each sample is drawn, by the section `sampler`; the masks are counted only if that depends on
    them."""
    return draws_of(Sampler(**config), runtime["class_pixels"])


def runtime_of(task, facts: Facts, split, skip_bad: bool, counted: np.ndarray | None = None) -> dict:
    """The runtime keywords of augmentations and losses for a training on `split`. counted: int64[N, C], the
    pixels of each class in each sample, where they have been counted before."""
    pixels = functools.cache(lambda: class_pixels(split, facts.num_classes, facts.ignore_index, skip_bad))
    if counted is not None:
        pixels = functools.partial(np.asarray, counted)
    if not task.target.classes:
        pixels = functools.partial(_refuse_frequency, task.name)
    return {
        "num_classes": facts.num_classes,
        "ignore_index": facts.ignore_index,
        "class_pixels": pixels,
        "class_frequency": lambda: frequency_of(pixels(), split),
        "facts": facts,
        "target": task.target,
        "task_activation": task.activation,
    }


def _refuse_frequency(task: str):
    raise ConfigError(
        f"class weights and class-wise draws need classes, and task={task} has none; leave them out"
    )


@dataclass(frozen=True)
class Learned:
    """What a training learns by: the augmentation operations, the loss and the draws of the sampler."""

    ops: list
    loss: nn.Module
    draws: Draws


def learned_by(config, parts: Parts, split, class_pixels: np.ndarray | None = None) -> Learned:
    """What a checked config learns by. The masks of the split are counted once, and only if one of these asks
    for class frequencies. class_pixels: int64[N, C], where they have been counted before."""
    skip_bad = Loader(**config["loader"]).skip_bad
    runtime = runtime_of(parts.task, parts.facts, split, skip_bad, class_pixels)
    warn_of_mirroring(parts.facts.classes, config["augmentation"], config["tta"])
    ops = augmentation(config["augmentation"], parts.facts, runtime)
    return Learned(ops, LOSS.build(config["loss"], **runtime), draws(config["sampler"], runtime))
