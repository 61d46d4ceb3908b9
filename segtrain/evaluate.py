"""Scores of a predictor on a split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from segtrain.sample import Facts


@dataclass(frozen=True)
class Scores:
    """numbers: what the metric gives. protocol: how they were made. pictures: a few (image, target,
    prediction), H×W×…"""

    numbers: dict
    protocol: dict
    pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def evaluate(
    predict: Callable,
    decide: Callable,
    metric,
    batches: Iterable,
    device,
    absent: str,
    shown: Collection[int],
    others: Sequence = (),
) -> Scores:
    """Counts over all batches, at the size of the labels, and the scores of the sum.

    predict: images -> probabilities. decide: probabilities -> predictions. shown: positions of the images to
    keep for a sheet.
    others: further metrics, whose numbers come with those of the first.
    """
    metrics, counts, images, pictures = (metric, *others), None, 0, []
    for batch in batches:
        prediction = decide(predict(batch.images.to(device, non_blocking=True)))
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


def lines(numbers: dict, facts: Facts) -> list[str]:
    """The scores as a table for the terminal: one row a class, then the means."""
    if "iou" not in numbers:
        return [
            "  ".join(f"{name} {value:.4f}" for name, value in numbers.items() if isinstance(value, float))
        ]
    width = max(len("mean"), *(len(name) for name in facts.classes))
    rows = [f"{'class':<{width}}     IoU    Dice  accuracy"]
    for name, *values in zip(
        facts.classes, numbers["iou"], numbers["dice"], numbers["accuracy"], strict=True
    ):
        rows.append(f"{name:<{width}}  {_cell(values[0])}  {_cell(values[1])}    {_cell(values[2])}")
    means = (numbers["miou"], numbers["mean_dice"], numbers["mean_accuracy"])
    rows.append(f"{'mean':<{width}}  {_cell(means[0])}  {_cell(means[1])}    {_cell(means[2])}")
    absent = len(facts.classes) - numbers["present"]
    note = f" ({absent} of {len(facts.classes)} classes absent)" if absent else ""
    named = {
        "pixel accuracy": "pixel_accuracy",
        "boundary F": "boundary_f",
        "mIoU near boundaries": "boundary_miou",
    }
    shown = [
        f"{words} {_cell(numbers[key]).strip()}"
        for words, key in named.items()
        if numbers.get(key) is not None
    ]
    rows.append(f"{', '.join(shown)}{note}")
    return rows


def _cell(value: float | None) -> str:
    return "     -" if value is None else f"{value:6.4f}"


def record(scores: Scores, facts: Facts) -> dict:
    """scores.json: the numbers, those of a class under its name, and the protocol."""
    by_class = {name: values for name, values in scores.numbers.items() if isinstance(values, list)}
    plain = {name: value for name, value in scores.numbers.items() if not isinstance(value, list)}
    named = {name: dict(zip(facts.classes, values, strict=True)) for name, values in by_class.items()}
    return {**plain, **named, "protocol": scores.protocol}
