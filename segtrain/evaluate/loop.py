"""Scores of a predictor on a split."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from segtrain import ranks
from segtrain.errors import ConfigError, DivergedError
from segtrain.evaluate.counts import Counts
from segtrain.predictor.predictor import Predictor
from segtrain.sample import Number, ScoreDict
from segtrain.text import count, notice


@dataclass(frozen=True)
class Scores:
    """The scores of an evaluation.

    numbers: the scores of all metrics. protocol: how they were computed. pictures: (image, target,
    prediction) of a few images, each H×W or H×W×…. further: keys of the `Number`s of all metrics but the
    first. totals: {metric: its counts, summed over the images}. per_image: {metric: its counts, one row per
    image, sparse}, of those asked for; on rank 0 alone. positions: index in the split of the image of each of
    its rows.
    """

    numbers: ScoreDict
    protocol: dict
    pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    further: tuple[str, ...] = ()
    totals: dict[str, Tensor] = field(default_factory=dict)
    per_image: dict[str, Tensor] = field(default_factory=dict)
    positions: tuple[int, ...] = ()

    def value(self, key: str) -> float | int | None:
        """The value of the `Number` with this key; None if there is none."""
        found = self.numbers.get(key)
        return found.value if isinstance(found, Number) else None


def evaluate(
    predict: Predictor,
    decide: Callable,
    metrics: Mapping[str, object],
    batches: Iterable,
    device,
    shown: Collection[int],
    kept: Collection[str] = (),
    at_thresholds: Callable[[Tensor, ScoreDict], Tensor] | None = None,
) -> Scores:
    """Sums the counts of the metrics over all batches, at the size of the labels; returns the scores.

    predict: images -> probabilities, B×C×H×W. decide: probabilities -> predictions, B×H×W or B×T×H×W.
    metrics: by name, see `segtrain.metric`. shown: positions of the images that `pictures` holds.
    kept: names of the metrics whose counts of every image are kept, as sparse tensors. at_thresholds:
    (probabilities, scores) -> predictions, in place of `decide` for the pictures; metrics then need
    probabilities.
    DivergedError if an output of the network is not finite: its most probable class would always be the first
    one.
    """
    counts = Counts(metrics, kept)
    positions: list[list[int]] = []  # of each batch
    pictures: list[list] = []
    drawn = "decisions" if at_thresholds is None else "probabilities"
    checked = Checked(decide)
    for batch in batches:
        evidence = _evidence(predict, checked, metrics, batch, device, shown)
        counts.add(batch.targets.to(device, non_blocking=True), evidence, batch.count)
        drawn_here = [i for i in range(batch.count) if batch.positions[i] in shown]
        pictures.append([(batch.images[i], batch.targets[i], evidence[drawn][i].cpu()) for i in drawn_here])
        positions.append(batch.positions[: batch.count])
    counts.gather()
    positions, pictures = (
        list(itertools.chain(*ranks.interleaved(ranks.all_gather(one)))) for one in (positions, pictures)
    )
    if ranks.all_reduce_max(int(not math.isfinite(checked.total))):
        raise DivergedError(
            "the network's output is not finite: its weights have grown beyond what it can compute with; "
            "train anew with a lower optimizer.lr or trainer.clip_norm"
        )
    numbers, further = counts.scores()
    if at_thresholds is not None:
        pictures = [(*given, at_thresholds(one[None], numbers)[0]) for *given, one in pictures]
    pictures = [tuple(map(channels_last, three)) for three in pictures]
    protocol = {"images": len(positions), "resolution": "native"}
    return Scores(numbers, protocol, pictures, further, counts.totals, counts.per_image(), tuple(positions))


class Checked:
    """`decide`, which also accumulates the sum of all probabilities on the device. The sum is not finite if
    any probability was not; it is read once, at the end, so no batch synchronises with the device."""

    def __init__(self, decide: Callable):
        self._decide, self.total = decide, 0

    def __call__(self, probabilities: Tensor) -> Tensor:
        self.total = probabilities.sum() + self.total
        return self._decide(probabilities)


def _evidence(predict, decide, metrics: Mapping[str, object], batch, device, shown) -> dict[str, Tensor]:
    """The inputs of the metrics for a batch, and its predictions."""
    needs = frozenset().union(*(metric.needs for metric in metrics.values()))
    images = batch.images.to(device, non_blocking=True)
    if "probabilities" in needs:
        probabilities = predict(images)
        evidence = {"probabilities": probabilities, "decisions": decide(probabilities)}
    else:
        # Strip by strip: the probabilities of a whole image would take C floats a pixel.
        evidence = {"decisions": predict.decided(decide, images)}
    if "instances" in needs:
        if batch.instances is None:
            raise ConfigError("metric: one of the metrics needs instances, and the data set has none")
        evidence["instances"] = batch.instances.to(device, non_blocking=True)
    return evidence


def warn_of_no_label(images: int, pixels: int) -> None:
    """Notice if there is no labelled pixel among the images, so that no score has a value."""
    if images and not pixels:
        notice(
            f"warning: no pixel of {count(images, 'image')} has a label, so nothing is scored; benchmarks do "
            f"not publish the labels of their test split: segtrain submit writes what their servers take"
        )


def evenly_spaced(count: int, wanted: int) -> set[int]:
    """`wanted` evenly spaced indices of 0..count-1, since neighbouring frames of a video look alike."""
    wanted = min(wanted, count)
    return {(2 * i + 1) * count // (2 * wanted) for i in range(wanted)}


def channels_last(image: torch.Tensor) -> np.ndarray:
    """K×H×W as H×W×K, H×W as it is."""
    return image.numpy() if image.ndim == 2 else image.numpy().transpose(1, 2, 0)
