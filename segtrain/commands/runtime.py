"""The runtime keywords of augmentations and losses."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from segtrain.augmentation import AUGMENTATION
from segtrain.data.survey.stats import class_pixels, frequency_of
from segtrain.errors import ConfigError
from segtrain.loader.draws import Draws, draws_of
from segtrain.sample import Facts
from segtrain.settings import Sampler


def augmentation(config, facts: Facts, runtime: Mapping) -> list:
    """The augmentation operations of a config, in order. facts: with the normalisation of the network, whose
    mean fills pixels outside the image."""
    fill = tuple(round(255 * mean) for mean in facts.normalisation.mean)
    return AUGMENTATION.build_each(config, fill=fill, **runtime)


def draws(config: Mapping, runtime: Mapping) -> Draws:
    """How often each sample is drawn, by the section `sampler`; the masks are counted only if that depends on
    them."""
    return draws_of(Sampler(**config), runtime["class_pixels"])


def runtime_of(task, facts: Facts, split, skip_bad: bool) -> dict:
    """The runtime keywords of augmentations and losses for a training on `split`."""
    pixels = functools.cache(lambda: class_pixels(split, facts.num_classes, facts.ignore_index, skip_bad))
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
