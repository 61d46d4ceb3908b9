"""Scores as a table for the terminal, as scores.json, and as the flat numbers of metrics.jsonl and
TensorBoard.

The layout follows from the types of the scores; no metric is named here.
"""

from __future__ import annotations

from collections.abc import Mapping

from segtrain.errors import printable
from segtrain.evaluate.loop import Scores
from segtrain.sample import Curve, Facts, Number, PerClass, ScoreDict
from segtrain.text import count, number, table


def lines(numbers: ScoreDict, facts: Facts) -> list[str]:
    """The scores as a table for the terminal: one row per class and a row of their means, the same for groups
    of classes, then the other numbers, then the curves."""
    columns = [one for one in numbers.values() if isinstance(one, PerClass)]
    in_table = {column.mean for column in columns}
    rows = []
    for groups in dict.fromkeys(column.groups for column in columns):
        rows += _by_class(numbers, [column for column in columns if column.groups == groups], facts)
    others = [one for key, one in numbers.items() if isinstance(one, Number) and key not in in_table]
    if others:
        rows.append(", ".join(f"{one.label} {number(one.value)}" for one in others))
    for curve in (one for one in numbers.values() if isinstance(one, Curve)):
        points = zip((f"{x:g}" for x in curve.x), map(number, curve.y), strict=True)
        rows += table((curve.x_label, curve.label), points)
    return rows


def _by_class(numbers: ScoreDict, columns: list[PerClass], facts: Facts) -> list[str]:
    """The table of scores per class, or per group of classes."""
    groups = columns[0].groups
    values = zip(*(column.values for column in columns), strict=True)
    body = [(name, *map(number, row)) for name, row in zip(groups or facts.classes, values, strict=True)]
    means = [number(numbers[column.mean].value) if column.mean else "" for column in columns]
    head = "class" if groups is None else "classes"
    return table((head, *(column.label for column in columns)), [*body, ("mean", *means)])


def extent(protocol: Mapping) -> str:
    """What was scored, for the terminal: '6 images, 24576 labelled pixels', and the split if it is known."""
    images, pixels = count(protocol["images"], "image"), count(protocol["pixels"], "labelled pixel")
    of = f" of split {protocol['split']}" if "split" in protocol else ""
    return f"{images}{of}, {pixels}"


def as_record(scores: Scores, facts: Facts) -> dict:
    """The content of scores.json: single scores, scores per class by class name, curves as lists x and y, and
    the protocol."""
    plain: dict = {}
    for key, score in scores.numbers.items():
        if isinstance(score, PerClass):
            plain[key] = dict(zip(score.groups or facts.classes, score.values, strict=True))
        elif isinstance(score, Curve):
            plain[key] = {"x": list(score.x), "y": list(score.y)}
        else:
            plain[key] = score.value
    return {**plain, "protocol": scores.protocol}


def flat_scores(numbers: ScoreDict, facts: Facts) -> dict:
    """{"val/miou": …, "val/iou/sky": …, "val/calibration/0.5": …} for metrics.jsonl and TensorBoard."""
    flat = {}
    for key, score in numbers.items():
        if isinstance(score, Number):
            flat[f"val/{key}"] = score.value
            continue
        if isinstance(score, PerClass):
            # TensorBoard shows names as they are.
            points = zip(map(printable, score.groups or facts.classes), score.values, strict=True)
        else:
            points = zip((f"{x:g}" for x in score.x), score.y, strict=True)
        flat.update({f"val/{key}/{name}": value for name, value in points})
    return flat
