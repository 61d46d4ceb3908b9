"""Charts of horizontal bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from segtrain.errors import printable
from segtrain.report.sheet import BACKGROUND, GAP_PX, INK, LINE_PX

BAR_PX = 220
TEXT_PX = 110
LABEL_PX = 180
GRID = (225, 225, 225)


class Bar(NamedTuple):
    """label: words on the left. start, end: of the bar, as shares (0..1) of the panel's width. text: words on
    the right. mark: share at which a line stands; None: no line."""

    label: str
    colour: tuple[int, int, int]
    start: float
    end: float
    text: str
    mark: float | None = None


def panel(title: str, bars: Sequence[Bar]) -> Image.Image:
    """Bars below each other, under a title. Without any label there is no column for labels."""
    font = ImageFont.load_default(13)
    widest = max((font.getlength(printable(bar.label)) for bar in bars), default=0)
    left = GAP_PX + (int(min(widest, LABEL_PX)) + 8 if widest else 0)
    width = max(left + BAR_PX + TEXT_PX, GAP_PX + int(font.getlength(title)) + GAP_PX)
    canvas = Image.new("RGB", (width, LINE_PX * (len(bars) + 1) + GAP_PX), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP_PX, 2), printable(title), INK, font)
    for row, bar in enumerate(bars, 1):
        top = row * LINE_PX
        draw.text((GAP_PX, top + 1), fitting(printable(bar.label), font), INK, font)
        draw.rectangle((left, top + 3, left + BAR_PX, top + 15), fill=GRID)
        if bar.end > bar.start:
            end = max(bar.end * BAR_PX, bar.start * BAR_PX + 1)
            draw.rectangle(
                (left + bar.start * BAR_PX, top + 3, left + end, top + 15), fill=bar.colour, outline=INK
            )
        if bar.mark is not None:
            middle = left + bar.mark * BAR_PX
            draw.rectangle((middle - 2, top, middle + 2, top + 18), fill=BACKGROUND, outline=INK)
        draw.text((left + BAR_PX + 8, top + 1), printable(bar.text), INK, font)
    return canvas


def chart(title: str, rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Panels side by side, in rows, under a title."""
    width = max(sum(one.width for one in row) for row in rows)
    height = sum(max(one.height for one in row) + LINE_PX for row in rows)
    font = ImageFont.load_default(13)
    width = max(width, int(font.getlength(printable(title))) + 2 * GAP_PX)
    canvas = Image.new("RGB", (width, LINE_PX + height), BACKGROUND)
    ImageDraw.Draw(canvas).text((GAP_PX, 3), printable(title), INK, font)
    top = LINE_PX + GAP_PX
    for row in rows:
        left = 0
        for one in row:
            canvas.paste(one, (left, top))
            left += one.width
        top += max(one.height for one in row) + LINE_PX
    return canvas


def fitting(label: str, font) -> str:
    """The label, cut to LABEL_PX pixels."""
    while font.getlength(label) > LABEL_PX:
        label = label.removesuffix("…")[:-1] + "…"
    return label
