"""The picture of a sweep: its history, and its parallel coordinates."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from segtrain.errors import printable
from segtrain.report.bars import GRID
from segtrain.report.sheet import BACKGROUND, INK

SCALE = 2
"""Pictures are drawn that many times larger and scaled down, which smooths lines."""
WIDTH, HEIGHT, TOP, BOTTOM, SIDE = 720, 300, 44, 34, 70
AXIS_PX = 150
LABEL = 20
"""Characters of a label beside an axis; longer ones are cut."""
MUTED = (150, 150, 150)
WORST, BEST = (196, 205, 222), (178, 34, 52)
COLOURS = {"finished": (43, 98, 168), "pruned": (222, 140, 30)}


class Mark(NamedTuple):
    """A trial in the history. value: its best score; None if it has none. low, high: of its interval."""

    number: int
    status: str
    value: float | None
    low: float | None = None
    high: float | None = None


class Axis(NamedTuple):
    """An axis of the parallel coordinates. ticks: (place from 0 to 1, label)."""

    name: str
    ticks: Sequence[tuple[float, str]]


def history(marks: Sequence[Mark], label: str, lower_is_better: bool) -> Image.Image:
    """The best score of each trial with its interval, and the best of all finished ones so far."""
    canvas, draw, font = _canvas(WIDTH)
    known = sorted(mark for mark in marks if mark.value is not None)
    ends = [end for mark in known for end in (mark.value, mark.low, mark.high) if end is not None]
    low, high = _padded(min(ends, default=0.0), max(ends, default=1.0))
    count = max((mark.number for mark in marks), default=1)

    def x(number: int) -> float:
        return SIDE + (number - 0.5) / count * (WIDTH - SIDE - 20)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    _text(draw, font, SIDE, 4, f"{label} of each trial")
    for place in range(5):
        value = low + (high - low) * place / 4
        _line(draw, [(SIDE, y(value)), (WIDTH - 20, y(value))], GRID)
        _text(draw, font, 8, y(value) - 8, f"{value:.3f}")
    for number in range(1, count + 1, max(1, count // 12)):
        _text(draw, font, x(number) - 4 * len(str(number)), HEIGHT - BOTTOM + 8, str(number))
    for mark in known:
        if mark.low is not None and mark.high is not None:
            _line(draw, [(x(mark.number), y(mark.low)), (x(mark.number), y(mark.high))], MUTED)
        _dot(draw, x(mark.number), y(mark.value), COLOURS.get(mark.status, MUTED))
    best = [(x(number), y(value)) for number, value in _best_so_far(known, lower_is_better)]
    for (left, above), (right, below) in itertools.pairwise(best):
        _line(draw, [(left, above), (right, above), (right, below)], BEST, 2)
    interval = [("95 % interval", MUTED)] if any(mark.low is not None for mark in known) else []
    _legend(draw, font, [*COLOURS.items(), ("best so far", BEST), *interval])
    return _small(canvas)


def _best_so_far(known: Sequence[Mark], lower_is_better: bool) -> list[tuple[int, float]]:
    """(number, best score up to it) of each finished trial."""
    finished = [mark for mark in known if mark.status == "finished"]
    values = itertools.accumulate((mark.value for mark in finished), min if lower_is_better else max)
    return [(mark.number, value) for mark, value in zip(finished, values, strict=True)]


def parallel(axes: Sequence[Axis], lines: Sequence[tuple[Sequence[float], float]]) -> Image.Image:
    """A line for each trial through its values on the axes. lines: (position on each axis, shade: 0 for the
    worst trial, 1 for the best), drawn in that order."""
    canvas, draw, font = _canvas(max(WIDTH, 2 * SIDE + AXIS_PX * (len(axes) - 1) + 60))
    width = canvas.width // SCALE
    step = (width - 2 * SIDE - 60) / max(1, len(axes) - 1)
    places = [SIDE + step * number for number in range(len(axes))]

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    for positions, shade in lines:
        colour = tuple(round(a + (b - a) * shade) for a, b in zip(WORST, BEST, strict=True))
        points = [(place, y(one)) for place, one in zip(places, positions, strict=True)]
        _line(draw, points, colour, 2 if shade == 1 else 1.3)
    for place, axis in zip(places, axes, strict=True):
        _line(draw, [(place, TOP), (place, HEIGHT - BOTTOM)], INK)
        _text(draw, font, max(4, place - 40), TOP - 22, _cut(axis.name))
        for share, label in axis.ticks:
            _line(draw, [(place - 3, y(share)), (place + 3, y(share))], INK)
            _text(draw, font, place + 6, y(share) - 8, _cut(label))
    _text(draw, font, SIDE, 4, "finished trials; the better the score, the redder the line")
    return _small(canvas)


def _padded(low: float, high: float) -> tuple[float, float]:
    gap = (high - low) * 0.06 or 0.05
    return low - gap, high + gap


def _canvas(width: int):
    canvas = Image.new("RGB", (width * SCALE, HEIGHT * SCALE), BACKGROUND)
    return canvas, ImageDraw.Draw(canvas), ImageFont.load_default(13 * SCALE)


def _small(canvas: Image.Image) -> Image.Image:
    return canvas.resize((canvas.width // SCALE, canvas.height // SCALE), Image.Resampling.BOX)


def _line(draw, points, colour, width: float = 1) -> None:
    scaled = [(x * SCALE, y * SCALE) for x, y in points]
    draw.line(scaled, fill=colour, width=round(width * SCALE), joint="curve")


def _dot(draw, x: float, y: float, colour) -> None:
    draw.ellipse([(c + d) * SCALE for d in (-4, 4) for c in (x, y)], fill=colour, outline=BACKGROUND)


def _text(draw, font, x: float, y: float, text: str) -> None:
    draw.text((x * SCALE, y * SCALE), printable(text), INK, font)


def _cut(text: str) -> str:
    return text if len(text) <= LABEL else text[: LABEL - 1] + "…"


def _legend(draw, font, colours) -> None:
    left = SIDE
    for name, colour in colours:
        _line(draw, [(left, 32), (left + 14, 32)], colour, 4)
        _text(draw, font, left + 20, 24, name)
        left += 34 + font.getlength(name) / SCALE
