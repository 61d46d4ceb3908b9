"""What each view of test-time augmentation gains, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from segtrain.commands.scoring import Scoring, score_split
from segtrain.errors import ConfigError
from segtrain.evaluate.loop import Scores
from segtrain.model.network import Network
from segtrain.model.output_stride import at_output_stride
from segtrain.text import number, table


def check_report(tta: Mapping) -> None:
    """ConfigError if there are no views to report on."""
    if not _entries(tta):
        raise ConfigError("evaluate.tta_report=true compares views, and tta names none; add tta=flip")


def tta_report(scoring: Scoring, model: Network, split, device, stop, scores: Scores) -> list[dict]:
    """Score, gain and seconds per image without views, with each entry of `tta` alone and with all of them;
    without and with all of them also at another output stride, for networks that have one.

    The first row has no views; gains are against it. Seconds include reading the images. scores: those with
    all entries, which are not computed again.
    """
    rows: list[dict] = []
    quiet = replace(scoring, settings=replace(scoring.settings, pictures=0))
    everything = _entries(scoring.inference.tta)
    for network, tta in _cases(model, everything):
        made = scores
        if network is not model or tta != everything:
            chosen = replace(quiet, inference=scoring.inference.with_views(tta))
            what = "+".join(tta) or "no views"
            made = score_split(chosen, network, split, device, stop, f"evaluating with {what}")
        rows.append(_row(made, tta, network, scoring.task, rows[0] if rows else None))
    return rows


def report_lines(rows: list[dict], scores: Scores, task) -> list[str]:
    """The report as a table for the terminal."""
    with_stride = any(row["output_stride"] for row in rows)
    head = ["tta", *(["output stride"] if with_stride else []), scores.numbers[task.score].label]
    body = [
        [
            "+".join(row["tta"]) or "none",
            *([str(row["output_stride"])] if with_stride else []),
            number(row[task.score]),
            "-" if row["gain"] is None else f"{row['gain']:+.4f}",
            f"{row['seconds_per_image']:.3g}",
        ]
        for row in rows
    ]
    return table([*head, "gain", "seconds per image"], body)


def _entries(tta: Mapping) -> dict:
    return {name: options for name, options in tta.items() if options is not None}


def _cases(model: Network, everything: Mapping) -> Iterator[tuple[Network, dict]]:
    """(network, views) of each row."""
    yield model, {}
    if len(everything) > 1:
        for name, options in everything.items():
            yield model, {name: options}
    yield model, dict(everything)
    twin = _other_stride(model)
    if twin is not None:
        yield twin, {}
        yield twin, dict(everything)


def _other_stride(model: Network) -> Network | None:
    """The network at output stride 8, or at 16 if it has 8; None if the output stride cannot be chosen."""
    if model.output_stride is None:
        return None
    try:
        return at_output_stride(model, 16 if model.output_stride == 8 else 8)
    except ConfigError:  # of an encoder that does not take that stride
        return None


def _row(scores: Scores, tta: Mapping, network: Network, task, plain: Mapping | None) -> dict:
    score = scores.value(task.score)
    gain = None
    if plain is not None and score is not None and plain[task.score] is not None:
        gain = (score - plain[task.score]) * (-1 if task.lower_is_better else 1)
    return {
        "tta": dict(tta),
        "output_stride": network.output_stride,
        task.score: score,
        "gain": gain,
        "seconds_per_image": scores.protocol["seconds"] / scores.protocol["images"],
    }
