"""Scores as a table for the terminal and as scores.json."""

from __future__ import annotations

from segtrain.evaluate.loop import Scores
from segtrain.sample import Facts


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


def as_record(scores: Scores, facts: Facts) -> dict:
    """scores.json: the numbers, those of a class under its name, and the protocol."""
    by_class = {name: values for name, values in scores.numbers.items() if isinstance(values, list)}
    plain = {name: value for name, value in scores.numbers.items() if not isinstance(value, list)}
    named = {name: dict(zip(facts.classes, values, strict=True)) for name, values in by_class.items()}
    return {**plain, **named, "protocol": scores.protocol}
