"""Contact sheets: one row an image, with its truth, the prediction and where they differ, or the predictions
of several networks."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrain.errors import printable
from segtrain.sample import Facts

GAP_PX = 6
LINE_PX = 20
BACKGROUND = (255, 255, 255)
INK = (30, 30, 30)
ROW_WIDTH_PX = 320
"""Width of a picture; larger ones are scaled down, so that a sheet of photographs fits on a screen."""
MAX_TALL = 4
"""Largest ratio of height to width at that width; higher pictures are made narrower."""


def overlay(image: np.ndarray, colours: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """H×W×3 uint8: the image with the colours over it."""
    return cv2.addWeighted(image, 1 - strength, colours, strength, 0)


def sheet(
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]], facts: Facts, picture, errors, title: str
) -> Image.Image:
    """rows: (image H×W×K, target H×W, prediction H×W). picture and errors: the task's; no column of errors if
    that is None."""
    heads = [["image"], ["ground truth"], ["prediction"], *([] if errors is None else [["errors"]])]
    cells = [
        [as_rgb(i), picture(t, facts), picture(p, facts), *([] if errors is None else [errors(t, p, facts)])]
        for i, t, p in rows
    ]
    return _grid(cells, heads, facts, title)


def comparison(
    rows: list[tuple[np.ndarray, ...]], heads: list[list[str]], facts: Facts, picture, title: str
) -> Image.Image:
    """rows: (image, target, the prediction of each network); heads: the lines over each network's column."""
    cells = [[as_rgb(image), *(picture(classes, facts) for classes in rest)] for image, *rest in rows]
    return _grid(cells, [["image"], ["ground truth"], *heads], facts, title)


def _grid(cells: list[list[np.ndarray]], heads: list[list[str]], facts: Facts, title: str) -> Image.Image:
    """Pictures in rows and columns with lines of text over each column; the first column holds photographs,
    the others masks."""
    height, width = cells[0][0].shape[:2]
    extent = max(width, height / MAX_TALL)
    scale = min(1.0, ROW_WIDTH_PX / extent)
    # Pictures below 2/3 of the row's width are enlarged by whole numbers, so that pixels stay squares.
    scale = max(1, round(ROW_WIDTH_PX / extent)) if scale == 1.0 else scale
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    legend = _legend(facts, len(heads) * (cell[0] + GAP_PX) + GAP_PX)
    top = LINE_PX * (1 + max(map(len, heads)))
    canvas = Image.new(
        "RGB", (legend.width, top + len(cells) * (cell[1] + GAP_PX) + legend.height), BACKGROUND
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    draw.text((GAP_PX, 3), printable(title), INK, font)
    for column, lines in enumerate(heads):
        left = GAP_PX + column * (cell[0] + GAP_PX)
        for number, line in enumerate(lines, 1):
            draw.text((left, LINE_PX * number + 1), printable(line), INK, font)
    for row, pictures in enumerate(cells):
        for column, pixels in enumerate(pictures):
            how = Image.Resampling.LANCZOS if column == 0 and scale < 1 else Image.Resampling.NEAREST
            place = (GAP_PX + column * (cell[0] + GAP_PX), top + row * (cell[1] + GAP_PX))
            canvas.paste(Image.fromarray(pixels).resize(cell, how), place)
    canvas.paste(legend, (0, canvas.height - legend.height))
    return canvas


def as_rgb(image: np.ndarray) -> np.ndarray:
    """H×W×3 uint8 of an image of any channels and type: the first three channels, or the first one as
    grey."""
    image = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    return ((image.astype(np.float32) - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


def _legend(facts: Facts, width: int) -> Image.Image:
    """The classes with their colours, broken into lines."""
    font = ImageFont.load_default(13)
    places, x, y = [], GAP_PX, 4
    for name, colour in zip(map(printable, facts.classes), facts.palette, strict=True):
        need = 18 + int(font.getlength(name)) + 14
        if x + need > width and x > GAP_PX:
            x, y = GAP_PX, y + LINE_PX
        places.append((x, y, name, colour))
        x += need
    canvas = Image.new("RGB", (width, y + LINE_PX + 2), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for x, y, name, colour in places:
        draw.rectangle((x, y + 2, x + 12, y + 14), fill=tuple(colour), outline=INK)
        draw.text((x + 18, y), name, INK, font)
    return canvas
