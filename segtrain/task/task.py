"""What a task defines; each factory of the table makes a `Task`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor, nn

from segtrain.sample import CLASSES, Facts, Target


def _no_networks(facts: Facts) -> dict[str, nn.Module]:
    return {}


def _as_predicted(prediction: np.ndarray, facts: Facts, data: Mapping) -> dict[str, np.ndarray]:
    return {"": prediction}


@dataclass(frozen=True)
class Task:
    """What the network's output means, and how it is scored, drawn and saved. Letters as in
    `segtrain.sample`.

    out_channels: facts -> number of channels of the logits.
    activation: of the logits, softmax or sigmoid; a loss that takes them for others is refused.
    initial_logit: facts -> the value that the biases of new heads start from; None: that of the network.
    activate: (logits B×C×H×W, images B×K×H×W before normalisation) -> probabilities B×C×H×W, or any other
    values whose mean over views and tiles makes sense.
    decide: probabilities -> predictions in the form of the target, B×H×W or B×T×H×W.
    metrics: {name: options} of the metrics that are used unless `metric=` names others.
    score: key of the score that picks the best checkpoint, the one with the highest score unless
    `lower_is_better`.
    picture: (prediction or target of one image, H×W or H×W×T; facts) -> H×W×3 uint8 RGB.
    errors: (target, prediction, facts) -> H×W×3 uint8 RGB; None: contact sheets have no column of errors.
    target: what the values of the target are.
    folder: folder of the predictions below OUTPUT of `predict`. They are PNG if uint8 or uint16, TIFF if H×W
    float32, else .npy.
    stored: (prediction of one image, facts, config of the run's data set) -> what is written of it, by the
    folder below `folder`; "": in `folder` itself.
    thresholds: of the labels of a task whose labels hold from a probability on, where they are set; None:
    the task has none, or they are still to be fitted to the validation split.
    with_thresholds: thresholds -> the same task with these; None: the task has none.

    For tasks that train more than one network:
    networks: facts -> {name: network}, without the network that is served.
    optimizers: {name: config of its optimizer}, by the names of the networks; a network without an entry
    takes the run's.
    step: (state, batch, learning) -> (summed loss, its weight), called in place of
    `segtrain.train.step.train_step`.
    """

    name: str
    out_channels: Callable[[Facts], int]
    activate: Callable[[Tensor, Tensor], Tensor]
    decide: Callable[[Tensor], Tensor]
    metrics: Mapping[str, dict]
    score: str
    picture: Callable[[np.ndarray, Facts], np.ndarray]
    errors: Callable[[np.ndarray, np.ndarray, Facts], np.ndarray] | None = None
    lower_is_better: bool = False
    target: Target = CLASSES
    folder: str = "classes"
    networks: Callable[[Facts], dict[str, nn.Module]] = _no_networks
    optimizers: Mapping[str, dict] = field(default_factory=dict)
    step: Callable | None = None
    activation: Literal["softmax", "sigmoid"] = "softmax"
    initial_logit: Callable[[Facts], float] | None = None
    stored: Callable[[np.ndarray, Facts, Mapping], dict[str, np.ndarray]] = _as_predicted
    thresholds: tuple[float, ...] | None = None
    with_thresholds: Callable[[Sequence[float]], Task] | None = None

    @property
    def fits_thresholds(self) -> bool:
        """Whether the thresholds are still to be fitted."""
        return self.with_thresholds is not None and self.thresholds is None
