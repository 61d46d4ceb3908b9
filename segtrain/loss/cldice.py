"""The soft clDice loss: whether the centre lines of thin structures are found, and only those."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from segtrain.errors import ConfigError, nearest
from segtrain.loss.heads import Head, HeadLoss, check_classes, foreground, probabilities_of
from segtrain.options import NOT_NEGATIVE, Limits, between
from segtrain.sample import CLASSES, Facts, Output, Target

ITERATIONS = Limits("an integer from 1 to 100", lambda value: 1 <= value <= 100)


class CenterlineDice(HeadLoss):
    """`(B · mean over classes of (1 - soft clDice), B)`, float32 scalars; (0, 0) if no pixel is labelled.

    The mean is over those of the chosen classes that the targets hold, and the sums are over the batch, so
    the value depends on which images share it. Pixels without a label count as pixels of no class.
    """

    def __init__(
        self,
        chosen: tuple[int, ...],
        ignore_index: int,
        activation: str,
        iterations: int,
        smooth: float,
        aux_weight: float,
    ):
        super().__init__(aux_weight)
        self.register_buffer("chosen", torch.tensor(chosen))
        self.ignore_index, self.activation = ignore_index, activation
        self.iterations, self.smooth = iterations, smooth

    def labels(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The targets of the chosen classes and their centre lines, B×N×H×W floats 0 or 1, and which pixels
        are labelled, B×1×H×W."""
        target = super().labels(output, target)
        inside = (target[:, None] == self.chosen.view(1, -1, 1, 1)).float()
        return inside, skeleton(inside, self.iterations), (target != self.ignore_index)[:, None]

    def of_head(self, head: Head, labels: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        inside, lines, labelled = labels
        probabilities = probabilities_of(head.upsampled(), self.activation)[:, self.chosen] * labelled
        # Equations 1 and 2 of the paper, of each class.
        precision = self._share(skeleton(probabilities, self.iterations), inside)
        sensitivity = self._share(lines, probabilities)
        losses = 1 - 2 * precision * sensitivity / (precision + sensitivity)  # N
        present = inside.amax((0, 2, 3))
        images = len(inside) * labelled.any().float()
        return (losses * present).sum() / present.sum().clamp_min(1) * images, images

    def _share(self, lines: Tensor, inside: Tensor) -> Tensor:
        """The share of each class's centre lines that lies inside, from B×N×H×W: float32[N]."""
        axes = (0, 2, 3)
        return ((lines * inside).sum(axes) + self.smooth) / (lines.sum(axes) + self.smooth)


def skeleton(x: Tensor, iterations: int) -> Tensor:
    """The soft skeleton of B×N×H×W values 0..1 (Shit et al. 2021, algorithm 1): what opening removes from the
    values after 0, 1, … `iterations` erosions. Structures wider than about 2 · iterations pixels have
    none."""
    found = F.relu(x - _opened(x))
    for _ in range(iterations):
        x = _eroded(x)
        removed = F.relu(x - _opened(x))
        found = found + F.relu(removed - found * removed)
    return found


def _opened(x: Tensor) -> Tensor:
    return F.max_pool2d(_eroded(x), 3, stride=1, padding=1)


def _eroded(x: Tensor) -> Tensor:
    """The least value of each pixel and its four neighbours."""
    rows = -F.max_pool2d(-x, (3, 1), stride=1, padding=(1, 0))
    columns = -F.max_pool2d(-x, (1, 3), stride=1, padding=(0, 1))
    return torch.minimum(rows, columns)


def cldice(
    num_classes: int,
    ignore_index: int,
    classes: list[str] | None = None,
    iterations: Annotated[int, ITERATIONS] = 3,
    smooth: Annotated[float, between(0.001, 1_000_000)] = 1.0,
    aux_weight: Annotated[float, NOT_NEGATIVE] = 0.4,
    facts: Facts | None = None,
    target: Target = CLASSES,
    task_activation: str = "softmax",
) -> CenterlineDice:
    """Soft clDice loss (Shit et al. 2021), for thin classes whose connections matter: vessels, roads, cracks,
    poles.

    It compares centre lines, so it is used beside dice or cross_entropy in weighted_sum. Each iteration takes
    about 22 times the memory of the probabilities of the chosen classes.

    Options:
        classes: names of the thin classes; null: all but background
        iterations: erosions of the skeleton, at least half the width in pixels of the widest structure
        smooth: pixels added to numerator and denominator of precision and sensitivity
        aux_weight: weight of the losses of auxiliary heads
    """
    check_classes("cldice", target)
    chosen = _indices(classes, num_classes, facts)
    return CenterlineDice(chosen, ignore_index, task_activation, iterations, smooth, aux_weight)


def _indices(classes: list[str] | None, num_classes: int, facts: Facts | None) -> tuple[int, ...]:
    if classes is None:
        return foreground(num_classes, facts)
    known = () if facts is None else facts.classes
    for name in classes:
        if name not in known:
            raise ConfigError(
                f"loss.classes holds {name!r}, which is no class of the data{nearest(name, known)}; there "
                f"are {', '.join(known)}"
            )
    if not classes:
        raise ConfigError("loss.classes is []; allowed: one class or more, or null for all but background")
    return tuple(sorted({known.index(name) for name in classes}))
