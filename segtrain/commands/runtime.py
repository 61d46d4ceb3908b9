"""The runtime keywords of augmentations and losses."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from segtrain.augmentation import AUGMENTATION
from segtrain.data.survey.stats import frequency
from segtrain.errors import ConfigError
from segtrain.sample import Facts


def augmentation(config, facts: Facts, runtime: Mapping) -> list:
    """The augmentation operations of a config, in order. facts: with the normalisation of the network, whose
    mean fills pixels outside the image."""
    fill = tuple(round(255 * mean) for mean in facts.normalisation.mean)
    return AUGMENTATION.build_each(config, fill=fill, **runtime)


def runtime_of(task, facts: Facts, split, skip_bad: bool) -> dict:
    """The runtime keywords of augmentations and losses for a training on `split`."""
    class_frequency = functools.cache(
        lambda: frequency(split, facts.num_classes, facts.ignore_index, skip_bad)
    )
    if not task.target.classes:
        class_frequency = functools.partial(_refuse_frequency, task.name)
    return {
        "num_classes": facts.num_classes,
        "ignore_index": facts.ignore_index,
        "class_frequency": class_frequency,
        "facts": facts,
        "target": task.target,
    }


def _refuse_frequency(task: str):
    raise ConfigError(
        f"class weights and class-wise draws need classes, and task={task} has none; leave them out"
    )
