"""One class for every pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from segtrain.sample import Facts, colourise, wrong_pixels


@dataclass(frozen=True)
class Task:
    """What the network's output means. Letters as in `segtrain.sample`.

    out_channels: facts -> number of channels of the logits.
    activate: logits -> probabilities, both B×C×H×W float; probabilities are averaged over views and tiles.
    decide: probabilities -> predictions, B×H×W like the target (semantic: int64 class indices).
    metric: its name in the table. score: the metric's number that picks the best checkpoint, the highest
    unless `lower_is_better`.
    picture: prediction or target of one image (H×W), and facts -> H×W×3 uint8 RGB. errors: target,
    prediction and facts -> H×W×3 uint8 RGB.
    """

    name: str
    out_channels: Callable[[Facts], int]
    activate: Callable[[Tensor], Tensor]
    decide: Callable[[Tensor], Tensor]
    metric: str
    score: str
    picture: Callable[[np.ndarray, Facts], np.ndarray]
    errors: Callable[[np.ndarray, np.ndarray, Facts], np.ndarray] | None = None
    lower_is_better: bool = False


def semantic() -> Task:
    """One class for every pixel: softmax, the most probable class, mIoU."""
    return Task(
        name="semantic",
        out_channels=lambda facts: facts.num_classes,
        activate=lambda logits: logits.softmax(1),
        # max over channels is three to four times as fast as argmax on a CPU.
        decide=lambda probabilities: probabilities.max(1).indices,
        metric="confusion",
        score="miou",
        picture=lambda classes, facts: colourise(classes, facts.palette),
        errors=lambda target, prediction, facts: wrong_pixels(target, prediction, facts.ignore_index),
    )
