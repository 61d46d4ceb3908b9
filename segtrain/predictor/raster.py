"""Predictions of large TIFFs: read and written by windows, so that memory is set by the tiles."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from segtrain.data.files import tiff
from segtrain.data.files.raster import CACHE_BYTES, RasterImage, dataset, rasterio_module
from segtrain.data.files.reading import opened
from segtrain.errors import DataError, printable
from segtrain.predictor.mask import Mask
from segtrain.predictor.raster_tiles import RasterTiles
from segtrain.run.storage import written
from segtrain.sample import UNLABELLED, Window, no_label

BLOCK = 512
"""Side of the tiles of the file that is written; TIFF wants a multiple of 16."""
BAND_BYTES = 1 << 26
"""Of the probabilities of a row of tiles: as many columns are predicted at a time as that holds."""


def predict_raster(
    mask: Mask, image: RasterImage, mean: Sequence[float] | None, tile: int, path: Path
) -> None:
    """Writes the prediction of an image as a GeoTIFF of the same place, with the colours of the classes.
    Pixels where the image has no content have no class, which is the file's nodata value.

    mean: of each channel, as in `Normalisation`, which pixels without content are filled with; None: 0. tile:
    side of the predictor's tiles. DataError if a part of the image cannot be read, or if the task predicts
    several values a pixel, after which there is no file; CheckpointError if it cannot be written.
    """
    blocks = _blocks(mask, image, mean, tile)
    first = next(blocks)
    if first[1].ndim != 2:
        raise DataError(
            f"{image.path} is to be predicted window by window, and a prediction of several values a pixel "
            f"is not written so; cut the image into parts, or raise max_pixels to read it whole"
        )
    nodata = no_label(first[1].dtype, mask.facts.ignore_index)
    with dataset(image.path) as source:
        profile = {
            "crs": source.crs,
            "transform": source.transform,
            "dtype": first[1].dtype,
            "nodata": nodata,
        }
    palette = None if first[1].dtype.kind == "f" else mask.facts.palette
    with written(path) as file:  # GDAL's errors of writing are OSErrors
        _write(file.name, image.size, profile, palette, itertools.chain([first], blocks))
        _check_complete(file.name)


def _blocks(
    mask: Mask, image: RasterImage, mean: Sequence[float] | None, tile: int
) -> Iterator[tuple[Window, np.ndarray]]:
    """The predictions h×w of windows that cover the image."""
    height, width = image.size
    facts = mask.facts
    tiles = RasterTiles(lambda window: image.read(window, mean)[0], (facts.channels, height, width))
    across = max(2 * BLOCK, BAND_BYTES // (4 * facts.num_classes * tile) // BLOCK * BLOCK)
    name = printable(os.path.basename(image.path))
    with tqdm(total=height * width, desc=name, unit="px", unit_scale=True, leave=False, disable=None) as bar:
        for left in range(0, width, across):
            top, right = 0, min(left + across, width)
            for values in mask.strips_of(tiles, (left, right)):
                window = Window(top, left, *values.shape[:2])
                valid = image.valid(window)
                values[~valid] = no_label(values.dtype, facts.ignore_index)
                yield window, values
                top += values.shape[0]
                bar.update(values.shape[0] * values.shape[1])


def _write(path: str, size: tuple[int, int], profile: dict, palette, blocks: Iterable) -> None:
    rasterio = rasterio_module()
    layout = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate"}
    layout |= {"height": size[0], "width": size[1], "count": 1, "BIGTIFF": "IF_SAFER"}
    with (
        rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
        rasterio.open(path, "w", driver="GTiff", **layout, **profile) as target,
    ):
        if palette is not None:
            colours = {index: (*colour, 255) for index, colour in enumerate(palette)}
            target.write_colormap(1, colours | {profile["nodata"]: (*UNLABELLED, 0)})
        for (top, left, height, width), values in blocks:
            target.write(values, 1, window=rasterio.windows.Window(left, top, width, height))


def _check_complete(path: str) -> None:
    """OSError unless all tiles lie in the file: what GDAL cannot write when it closes a file, it does not
    tell."""
    try:
        with opened(path) as file:
            (page,) = tiff.pages(file, path)
            tiff.check_chunks(file, page, path)
            complete = all(page.lengths)
    except DataError:
        complete = False
    if not complete:
        raise OSError(errno.EIO, "the file could not be written to its end")
