"""Contact sheets: one row an image, with its truth, the prediction and where they differ, or the predictions
of several networks, or the image after augmentation."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrain.errors import printable
from segtrain.sample import UNLABELLED, Facts, Sample

GAP_PX = 6
LINE_PX = 20
BACKGROUND = (255, 255, 255)
INK = (30, 30, 30)
ROW_WIDTH_PX = 320
"""Width of a picture; larger ones are scaled down, so that a sheet of photographs fits on a screen."""
Colours = Sequence[tuple[str, tuple[int, int, int]]]
MAX_TALL = 4
"""Largest ratio of height to width at that width; higher pictures are made narrower."""


def overlay(image: np.ndarray, colours: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """H×W×3 uint8: the image with the colours over it."""
    return cv2.addWeighted(image, 1 - strength, colours, strength, 0)


def sheet(
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    facts: Facts,
    picture,
    errors,
    title: str,
    captions: list[str] | None = None,
    further: Colours = (),
) -> Image.Image:
    """rows: (image H×W×K, target H×W, prediction H×W). picture and errors: the task's; no column of errors if
    that is None. captions, further: as for `_grid`."""
    heads = [["image"], ["ground truth"], ["prediction"], *([] if errors is None else [["errors"]])]
    cells = [
        [as_rgb(i), picture(t, facts), picture(p, facts), *([] if errors is None else [errors(t, p, facts)])]
        for i, t, p in rows
    ]
    return _grid(cells, heads, facts, title, captions=captions, further=further)


def comparison(
    rows: list[tuple[np.ndarray, ...]], heads: list[list[str]], facts: Facts, picture, title: str
) -> Image.Image:
    """rows: (image, target, the prediction of each network); heads: the lines over each network's column."""
    cells = [[as_rgb(image), *(picture(classes, facts) for classes in rest)] for image, *rest in rows]
    return _grid(cells, [["image"], ["ground truth"], *heads], facts, title)


def samples(
    rows: list[tuple[Sample, ...]],
    heads: list[str],
    captions: list[str],
    facts: Facts,
    picture,
    title: str,
    over: bool,
) -> Image.Image:
    """rows: samples side by side, each drawn as its image and its target. heads: over each of these columns.
    captions: over each row. picture: the task's. over: whether the target is drawn over the image."""
    cells = [
        [cell for one in row for cell in (as_rgb(one.image), _labelled(one, facts, picture, over))]
        for row in rows
    ]
    photographs = range(0, len(heads), 1 if over else 2)
    options = {"captions": captions, "further": [("no label", UNLABELLED)], "photographs": photographs}
    return _grid(cells, [[head] for head in heads], facts, title, **options)


def _labelled(sample: Sample, facts: Facts, picture, over: bool) -> np.ndarray:
    """H×W×3 uint8: the colours of a target, alone or over its image, with a white line between touching
    objects; the image if there is no target."""
    if sample.target is None:
        return as_rgb(sample.image)
    drawn = picture(sample.target, facts)
    drawn = overlay(as_rgb(sample.image), drawn, 0.6) if over else drawn.copy()
    if sample.instances is not None:
        objects = sample.instances.astype(np.int32)  # H×W
        for here, before in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
            touch = (objects[here] != objects[before]) & (objects[here] > 0) & (objects[before] > 0)
            drawn[here][touch] = 255
    return drawn


def _grid(
    cells: list[list[np.ndarray]],
    heads: list[list[str]],
    facts: Facts,
    title: str,
    photographs: Collection[int] = (0,),
    captions: list[str] | None = None,
    further: Colours = (),
) -> Image.Image:
    """Pictures in rows and columns with lines of text over each column, all as large as the first one or
    smaller. photographs: numbers of the columns that hold photographs, from 0; the others hold masks.
    captions: a line over each row; None: no lines. further: names and colours of the legend besides those
    of the classes."""
    height, width = cells[0][0].shape[:2]
    extent = max(width, height / MAX_TALL)
    scale = min(1.0, ROW_WIDTH_PX / extent)
    # Pictures below 2/3 of the row's width are enlarged by whole numbers, so that pixels stay squares.
    scale = max(1, round(ROW_WIDTH_PX / extent)) if scale == 1.0 else scale
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    colours = list(zip(facts.classes, facts.palette, strict=True))
    colours += further
    legend = _legend(colours, len(heads) * (cell[0] + GAP_PX) + GAP_PX)
    top = LINE_PX * (1 + max(map(len, heads)))
    caption_px = 0 if captions is None else LINE_PX
    step = cell[1] + GAP_PX + caption_px
    canvas = Image.new("RGB", (legend.width, top + len(cells) * step + legend.height), BACKGROUND)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    draw.text((GAP_PX, 3), printable(title), INK, font)
    for column, lines in enumerate(heads):
        left = GAP_PX + column * (cell[0] + GAP_PX)
        for number, line in enumerate(lines, 1):
            draw.text((left, LINE_PX * number + 1), printable(line), INK, font)
    for row, pictures in enumerate(cells):
        if captions is not None:
            draw.text((GAP_PX, top + row * step + 2), printable(captions[row]), INK, font)
        for column, pixels in enumerate(pictures):
            place = (GAP_PX + column * (cell[0] + GAP_PX), top + row * step + caption_px)
            canvas.paste(_fitted(pixels, cell, column in photographs), place)
    canvas.paste(legend, (0, canvas.height - legend.height))
    return canvas


def _fitted(pixels: np.ndarray, cell: tuple[int, int], photograph: bool) -> Image.Image:
    """A picture in its own proportions, as large as fits into `cell` (width, height)."""
    height, width = pixels.shape[:2]
    scale = min(cell[0] / width, cell[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.LANCZOS if photograph and scale < 1 else Image.Resampling.NEAREST
    return Image.fromarray(pixels).resize(size, how)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """H×W×3 uint8 of an image of any channels and type: the first three channels, or the first one as
    grey."""
    image = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    return ((image.astype(np.float32) - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


def _legend(colours: list[tuple[str, tuple[int, int, int]]], width: int) -> Image.Image:
    """Names with their colours, broken into lines."""
    font = ImageFont.load_default(13)
    places, x, y = [], GAP_PX, 4
    for name, colour in ((printable(name), colour) for name, colour in colours):
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
