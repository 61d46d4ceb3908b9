"""Segmentation with several labels a pixel, each of which it has or has not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np

from segtrain.errors import ConfigError, printable
from segtrain.options import WITHIN_0_1
from segtrain.sample import UNLABELLED, Facts, Target
from segtrain.task.task import Task
from segtrain.thresholds import HALF, holds, on_grid

STRIPE_PX = 4
"""Width of the stripes that pictures show where a pixel has several labels, across both axes."""


def multilabel(threshold: Annotated[float, WITHIN_0_1] | None = None) -> Task:
    """Any number of labels at each pixel, by one sigmoid a label; scored by the mean of their IoU.

    Options:
        threshold: a pixel has a label from this probability on, rounded to a 256th, the same for all labels;
            null: for each label the one with its highest IoU on the validation split, fitted in each
            evaluation of the training and saved with the run
    """
    return _task(None if threshold is None else (on_grid(threshold),))


def _task(thresholds: tuple[float, ...] | None) -> Task:
    used = thresholds or (HALF,)
    return Task(
        name="multilabel",
        out_channels=lambda facts: facts.num_classes,
        activate=lambda logits, images: logits.sigmoid(),
        activation="sigmoid",
        decide=lambda probabilities: holds(probabilities, used),
        metrics={"labels": {}},
        score="miou",
        picture=striped,
        errors=wrong_labels,
        target=Target(classes=False, labels=True),
        folder="labels",
        stored=_by_label,
        thresholds=thresholds,
        with_thresholds=lambda thresholds: _task(tuple(thresholds)),
    )


def _by_label(prediction: np.ndarray, facts: Facts, data: Mapping) -> dict[str, np.ndarray]:
    """A mask of 0 and 255 for each label."""
    for name in facts.classes:
        if not is_file_name(name):
            raise ConfigError(
                f"the label {printable(name)!r} of the run cannot be the name of a folder; train with "
                f"another one in data.labels"
            )
    return {name: prediction[..., place] * np.uint8(255) for place, name in enumerate(facts.classes)}


def is_file_name(name: str) -> bool:
    """Whether a folder can have this name, and lies where it is made."""
    return bool(name) and not name.startswith(".") and not set(name) & {"/", "\\", "\0"}


def striped(labels: np.ndarray, facts: Facts) -> np.ndarray:
    """H×W×3 uint8 colours of an H×W×T map: the colour of a pixel's label, stripes of them where it has
    several, black where it has none; the colour of unlabelled pixels where nothing is known."""
    has = labels == 1
    number = has.sum(2)  # H×W
    rows, columns = np.indices(number.shape)
    shown = (rows + columns) // STRIPE_PX % np.maximum(number, 1)  # which one of the pixel's labels
    first = (has & (has.cumsum(2) == shown[..., None] + 1)).argmax(2)
    picture = np.asarray(facts.palette, np.uint8)[first]
    picture[number == 0] = 0
    picture[(labels == facts.ignore_index).all(2)] = UNLABELLED
    return picture


def wrong_labels(target: np.ndarray, prediction: np.ndarray, facts: Facts) -> np.ndarray:
    """H×W×3 uint8: red where a known label is wrong, light grey where all are right, white where none is
    known."""
    known = target != facts.ignore_index
    picture = np.full((*target.shape[:2], 3), 225, np.uint8)
    picture[((target != prediction) & known).any(2)] = (200, 30, 30)
    picture[~known.any(2)] = 255
    return picture
