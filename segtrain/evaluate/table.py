"""Scores as a table for the terminal, as scores.json, and as the flat numbers of metrics.jsonl and
TensorBoard.

The layout follows from the types of the scores; no metric is named here.
"""

from __future__ import annotations

from collections.abc import Mapping

from segtrain.errors import printable
from segtrain.evaluate.interval import NAME, between
from segtrain.evaluate.loop import Scores
from segtrain.sample import Curve, Facts, Number, PerClass, ScoreDict
from segtrain.text import count, number, table


def lines(numbers: ScoreDict, facts: Facts, bounds: Mapping | None = None) -> list[str]:
    """The scores as a table for the terminal: one row per class and a row of their means, the same for groups
    of classes, then the other numbers, then the curves. bounds: {key of a score: its interval}, see
    `segtrain.evaluate.interval.Intervals`; a column of those of each score per class."""
    columns = [one for one in numbers.values() if isinstance(one, PerClass)]
    in_table = {column.mean for column in columns}
    rows = []
    for groups in dict.fromkeys(column.groups for column in columns):
        of_groups = [column for column in columns if column.groups == groups]
        rows += _by_class(numbers, of_groups, facts, bounds or {})
    others = [one for key, one in numbers.items() if isinstance(one, Number) and key not in in_table]
    if others:
        rows.append(", ".join(f"{one.label} {number(one.value)}" for one in others))
    for curve in (one for one in numbers.values() if isinstance(one, Curve)):
        points = zip((f"{x:g}" for x in curve.x), map(number, curve.y), strict=True)
        rows += table((curve.x_label, curve.label), points)
    return rows


def _by_class(numbers: ScoreDict, columns: list[PerClass], facts: Facts, bounds: Mapping) -> list[str]:
    """The table of scores per class, or per group of classes."""
    groups = columns[0].groups
    heads, cells = [], []
    for column in columns:
        heads.append(column.label)
        mean = number(numbers[column.mean].value) if column.mean else ""
        cells.append([*map(number, column.values), mean])
        key = next(key for key, one in numbers.items() if one is column)
        if key in bounds:
            heads.append(NAME)
            of_mean = between(bounds.get(column.mean), 3) if column.mean else ""
            cells.append([*(between(one, 3) for one in bounds[key]), of_mean])
    head = "class" if groups is None else "classes"
    names = [*(groups or facts.classes), "mean"]
    return table((head, *heads), [(name, *row) for name, *row in zip(names, *cells, strict=True)])


def extent(protocol: Mapping) -> str:
    """What was scored, for the terminal: '6 images, 24576 labelled pixels', and the split if it is known."""
    images, pixels = count(protocol["images"], "image"), count(protocol["pixels"], "labelled pixel")
    of = f" of split {protocol['split']}" if "split" in protocol else ""
    only = protocol.get("only_class")
    alone = f", all of class {printable(only)}: a network that always predicts it scores 1" if only else ""
    missing = ", ".join(map(printable, protocol.get("labels_without_pixels") or ()))
    if missing and protocol["pixels"]:
        alone = f", none of {missing}: no prediction scores above 0 there"
    return f"{images}{of}, {pixels}{alone}"


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
