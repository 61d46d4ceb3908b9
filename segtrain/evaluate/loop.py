"""Scores of a predictor on a split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Scores:
    """numbers: what the metric gives. protocol: how they were made. pictures: a few (image, target,
    prediction), H×W×…"""

    numbers: dict
    protocol: dict
    pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def evaluate(
    predict: Callable,
    metric,
    batches: Iterable,
    device,
    absent: str,
    shown: Collection[int],
    others: Sequence = (),
) -> Scores:
    """Counts over all batches, at the size of the labels, and the scores of the sum.

    predict: images -> predictions, in the form of the targets. shown: positions of the images to keep for a
    sheet.
    others: further metrics, whose numbers come with those of the first.
    """
    metrics, counts, images, pictures = (metric, *others), None, 0, []
    for batch in batches:
        prediction = predict(batch.images.to(device, non_blocking=True))
        targets = batch.targets.to(device, non_blocking=True)
        parts = [one.counts(prediction, targets) for one in metrics]
        counts = parts if counts is None else [sum(pair) for pair in zip(counts, parts, strict=True)]
        for i in range(batch.count):
            if batch.positions[i] in shown:
                pictures.append(
                    (_picture(batch.images[i]), batch.targets[i].numpy(), prediction[i].cpu().numpy())
                )
        images += batch.count
    numbers = {
        name: value
        for one, count in zip(metrics, counts, strict=True)
        for name, value in one.scores(count, absent).items()
    }
    return Scores(numbers, {"images": images, "absent": absent, "resolution": "native"}, pictures)


def spread(count: int, wanted: int) -> set[int]:
    """`wanted` indices of 0..count-1, evenly apart: neighbours of a video show the same thing."""
    wanted = min(wanted, count)
    return {(2 * i + 1) * count // (2 * wanted) for i in range(wanted)}


def _picture(image: torch.Tensor) -> np.ndarray:
    return image.numpy().transpose(1, 2, 0)
