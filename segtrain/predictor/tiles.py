"""Large images tile by tile: overlapping tiles that are averaged, and the overlap-tile strategy of networks
without padding.

Both yield the probabilities as strips from top to bottom: rows that no later tile overlaps. So predictions
can be made strip by strip, without the probabilities of the whole image in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from segtrain.errors import ConfigError

Predict = Callable[[Tensor], Tensor]
"""B×K×H×W images -> B×C×H×W float32."""

Columns = tuple[int, int]
"""The first column of a part of an image, and the one after its last."""

Strips = Callable[..., Iterator[Tensor]]
"""(B×K×H×W images, Columns or None for all) -> B×C×h×w of h rows after the other, H in all, for w columns. Of
the images, only what tiles cover is indexed."""

AUTO_TILE_PIXELS = 4_000_000
"""Images with more pixels go through a sliding window even where predictor.tile is null, to bound the
memory."""
AUTO_TILE = 1024

VALID_TILE = 572
"""Side of the tiles of a network without padding where predictor.tile is null, as in U-Net's paper."""


def assembled(strips: Strips) -> Predict:
    """The strips of an image concatenated to one B×C×H×W tensor."""

    def whole(images: Tensor) -> Tensor:
        total, top = None, 0
        for strip in strips(images):
            rows = strip.shape[-2]
            if rows == images.shape[-2]:
                return strip
            total = strip.new_empty(*strip.shape[:-2], *images.shape[-2:]) if total is None else total
            total[..., top : top + rows, :] = strip
            top += rows
        return total

    return whole


def sliding(predict: Predict, tile: int | None, overlap: float) -> Strips:
    """`predict` on overlapping square tiles; probabilities are averaged where tiles overlap. An image of a
    tile's size goes in whole."""
    if not 0 <= overlap < 1:
        raise ConfigError(f"predictor.overlap is {overlap}; allowed: from 0 to below 1")

    def strips(images: Tensor, columns: Columns | None = None) -> Iterator[Tensor]:
        height, width = images.shape[-2:]
        side = tile or (AUTO_TILE if height * width > AUTO_TILE_PIXELS else None)
        if side is None or (height <= side and width <= side):
            yield predict(images[..., :height, :width])[..., slice(*columns or (0, width))]
        else:
            tops, lefts = starts(height, side, overlap), starts(width, side, overlap)
            yield from _blended(predict, images, side, tops, lefts, columns)

    return strips


def overlap_tile(
    predict: Predict, margin: int, sides: tuple[int, int], tile: int | None, overlap: float = 0.0
) -> Strips:
    """`predict` of a network without padding on tiles whose inner parts cover the image (Ronneberger et al.
    2015, fig. 2).

    What a tile sees beyond the image is the image mirrored at its border. All tilings give the same, because
    tiles begin at multiples of `step`: poolings then pair the same pixels in each of them.
    predict: square tiles -> their inner part. margin: pixels that a tile loses on each side. sides: (first,
    step) of the sides that the network takes. tile: the largest side to use. overlap: share of an inner
    part that the next one covers again; they are averaged.
    """
    first, step = sides
    least = first + step * max(0, math.ceil((step + 2 * margin - first) / step))
    tile = max(VALID_TILE, least) if tile is None else tile
    if tile < least:
        raise ConfigError(
            f"predictor.tile is {tile}; allowed for this network: {least}, {least + step}, "
            f"{least + 2 * step} … pixels"
        )

    def strips(images: Tensor, columns: Columns | None = None) -> Iterator[Tensor]:
        height, width = images.shape[-2:]
        steps = min(
            (tile - first) // step, max(0, math.ceil((max(height, width) + 2 * margin - first) / step))
        )
        inner = first + steps * step - 2 * margin
        yield from _blended(
            predict,
            images,
            inner,
            aligned_starts(height, inner, step, overlap),
            aligned_starts(width, inner, step, overlap),
            columns,
            margin,
        )

    return strips


def starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin: evenly spaced, at least `overlap` of a tile shared, the last one flush with the
    end."""
    if length <= tile:
        return [0]
    count = math.ceil((length - tile) / max(1, round(tile * (1 - overlap)))) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def aligned_starts(length: int, tile: int, step: int, overlap: float = 0.0) -> list[int]:
    """Where tiles begin at multiples of `step`, side by side or with at least `overlap` of a tile shared; the
    last one may reach beyond the end."""
    last = step * max(0, math.ceil((length - tile) / step))
    return [*range(0, last, max(1, int(tile * (1 - overlap)) // step) * step), last]


def _blended(
    predict: Predict,
    images: Tensor,
    side: int,
    tops: list[int],
    lefts: list[int],
    columns: Columns | None,
    margin: int = 0,
) -> Iterator[Tensor]:
    """The mean over the tiles that begin at `tops` × `lefts`, as strips. Tiles that hold none of the columns
    are left out."""
    height, width = images.shape[-2:]
    first, last = columns or (0, width)
    lefts = [left for left in lefts if left < last and left + side > first]
    rows = _covering(height, side, tops, images.device)
    across = _covering(width, side, lefts, images.device)[first:last]
    band = None
    for top, following in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            begin, end = max(left, first), min(left + side, last)
            part = predict(_tile(images, top, left, side, margin))
            part = part[..., : height - top, begin - left : end - left]
            band = part.new_zeros(*part.shape[:-1], last - first) if band is None else band
            # Added where it belongs; padding every tile to the whole image costs ten times as much.
            band[..., : part.shape[-2], begin - first : end - first] += part
        done = following - top
        yield band[..., :done, :] / (rows[top:following, None] * across)
        kept = band.shape[-2] - done
        rest = band[..., done:, :]
        band[..., :kept, :] = rest if kept <= done else rest.clone()  # a copy onto itself would be undefined
        band[..., kept:, :] = 0


def _covering(length: int, side: int, begins: list[int], device: torch.device) -> Tensor:
    """How many tiles cover each row or column."""
    count = torch.zeros(length, device=device)
    for begin in begins:
        count[begin : begin + side] += 1
    return count


def _tile(images: Tensor, top: int, left: int, side: int, margin: int) -> Tensor:
    if not margin:
        return images[..., top : top + side, left : left + side]
    rows, columns = (
        mirrored(begin - margin, side + 2 * margin, length, images.device)
        for begin, length in zip((top, left), images.shape[-2:], strict=True)
    )
    return images[..., rows[:, None], columns]


def mirrored(start: int, count: int, length: int, device: torch.device | None = None) -> Tensor:
    """`count` indices from `start` on into 0..length-1, reflected at both ends without repeating them
    (numpy's padding mode "reflect")."""
    period = max(1, 2 * (length - 1))
    index = torch.arange(start, start + count, device=device).remainder(period)
    return torch.minimum(index, period - index)
