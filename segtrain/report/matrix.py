"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrain.errors import printable
from segtrain.report.bars import fitting
from segtrain.report.sheet import BACKGROUND, GAP_PX, INK, LINE_PX

CELL_PX, SMALL_CELL_PX = 26, 14
MANY = 60
"""From so many classes on, cells are small and hold no number."""
RIGHT, WRONG = (36, 110, 190), (200, 50, 40)
"""Colours of a share of 1, on the diagonal and beside it."""
LINES = (215, 215, 215)


def confusion_picture(matrix: np.ndarray, classes: Sequence[str], title: str) -> Image.Image:
    """A row per true class: the shares of its pixels by predicted class, as colours and in per cent.

    matrix: C×C pixels, rows by true class. Beside each name stands the class's share of all labelled pixels;
    the row of a class without pixels is empty.
    """
    of_row = matrix.sum(1)
    shares = matrix / np.maximum(of_row, 1)[:, None]
    of_all = of_row / max(of_row.sum(), 1)
    cell = CELL_PX if len(classes) < MANY else SMALL_CELL_PX
    font = ImageFont.load_default(12)
    names = [printable(name) for name in classes]
    rows = [f"{fitting(name, font)}  {100 * share:.1f} %" for name, share in zip(names, of_all, strict=True)]
    columns = [fitting(name, font) for name in names]
    left, top = (int(max(font.getlength(text) for text in texts)) + 12 for texts in (rows, columns))
    top += 2 * LINE_PX
    heading = (
        printable(title),
        "rows: ground truth (share of the labelled pixels); columns: prediction; in % of the row",
    )
    side = cell * len(classes)
    width = max(left + side, *(int(font.getlength(text)) for text in heading)) + 2 * GAP_PX
    canvas = Image.new("RGB", (width, top + side + GAP_PX), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for number, text in enumerate(heading):
        draw.text((GAP_PX, 3 + number * LINE_PX), text, INK, font)
    for place, (row, column) in enumerate(zip(rows, columns, strict=True)):
        middle = top + place * cell + cell // 2
        draw.text((left - 6, middle), row, INK, font, anchor="rm")
        upright = _upright(column, font)
        canvas.paste(upright, (left + place * cell + (cell - upright.width) // 2, top - upright.height - 4))
    for row, column in np.ndindex(matrix.shape):
        corner = (left + column * cell, top + row * cell)
        share = shares[row, column]
        colour = _mixed(RIGHT if row == column else WRONG, share)
        draw.rectangle((*corner, corner[0] + cell, corner[1] + cell), colour, LINES)
        if cell == CELL_PX and round(100 * share) >= 1:
            ink = BACKGROUND if share > 0.55 else INK
            draw.text(
                (corner[0] + cell // 2 + 1, corner[1] + cell // 2),
                f"{100 * share:.0f}",
                ink,
                font,
                anchor="mm",
            )
    return canvas


def _mixed(colour: tuple[int, int, int], share: float) -> tuple[int, ...]:
    """White at 0, the colour at 1; the square root, so that a few per cent are seen."""
    strength = float(share) ** 0.5
    return tuple(round(255 + strength * (one - 255)) for one in colour)


def _upright(text: str, font) -> Image.Image:
    """The text from bottom to top."""
    canvas = Image.new("RGB", (max(1, int(font.getlength(text)) + 1), 16), BACKGROUND)
    ImageDraw.Draw(canvas).text((0, 0), text, INK, font)
    return canvas.rotate(90, expand=True)
