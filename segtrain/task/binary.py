"""Binary segmentation: one foreground class against background."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np

from segtrain.errors import ConfigError
from segtrain.options import WITHIN_0_1
from segtrain.sample import Facts, Target, colourise, wrong_pixels
from segtrain.task.task import Task
from segtrain.thresholds import HALF, holds, on_grid


def binary(threshold: Annotated[float, WITHIN_0_1] | None = None) -> Task:
    """One foreground class against background, by one sigmoid; scored by the IoU of the foreground.

    Options:
        threshold: a pixel is foreground from this probability on, rounded to a 256th; null: the one with the
            highest IoU on the validation split, fitted in each evaluation of the training and saved with the
            run
    """
    return _task(None if threshold is None else (on_grid(threshold),))


def _task(thresholds: tuple[float, ...] | None) -> Task:
    used = thresholds or (HALF,)
    return Task(
        name="binary",
        out_channels=_one_channel,
        activate=lambda logits, images: logits.sigmoid(),
        activation="sigmoid",
        decide=lambda probabilities: holds(probabilities, used)[:, 0],
        metrics={"foreground": {}},
        score="foreground_iou",
        picture=lambda classes, facts: colourise(classes, facts.palette),
        errors=lambda target, prediction, facts: wrong_pixels(target, prediction, facts.ignore_index),
        target=Target(labels=True),
        folder="masks",
        stored=_as_masks,
        thresholds=thresholds,
        with_thresholds=lambda thresholds: _task(tuple(thresholds)),
    )


def _one_channel(facts: Facts) -> int:
    if facts.num_classes != 2:
        raise ConfigError(
            f"task=binary tells one class from background, and the data has {facts.num_classes} classes "
            f"({', '.join(facts.classes[:5])}{', …' if facts.num_classes > 5 else ''}); use task=semantic, "
            f"or a data set of two classes, such as data=folder with data.label_map"
        )
    if facts.background != 0:
        raise ConfigError(
            f"task=binary takes class 0 for the background, and the data names it {facts.classes[0]!r} and "
            f"class 1 {facts.classes[1]!r}; give them in the other order (data=folder: data.classes and "
            f"data.label_map)"
        )
    return 1


def _as_masks(prediction: np.ndarray, facts: Facts, data: Mapping) -> dict[str, np.ndarray]:
    """0 and 255 if the masks of the data set hold these, else 0 and 1."""
    values = {int(value): index for value, index in (data.get("label_map") or {}).items()}
    return {"": prediction * np.uint8(255) if values == {0: 0, 255: 1} else prediction}
