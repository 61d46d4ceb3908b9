"""Prediction of TIFFs that are too large to be read whole."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from segtrain.data.files import tiff
from segtrain.data.files.channels import Channels
from segtrain.data.files.raster import raster_image
from segtrain.data.files.reading import opened, read_header
from segtrain.errors import DataError
from segtrain.predictor.inference import Inference
from segtrain.predictor.mask import Mask
from segtrain.predictor.raster import predict_raster
from segtrain.predictor.tiles import AUTO_TILE


def by_windows(
    inference: Inference, mask_of: Callable[[Inference], Mask], data: Mapping, max_pixels: int
) -> Callable[[str, Path], bool]:
    """A function (image, path) that predicts a TIFF window by window, writes the GeoTIFF `path`, and returns
    True. For an image that is no such TIFF it returns False and writes nothing.

    TIFFs of more than max_pixels are read so, and those of any size where the run has read its own so. data:
    the section `data` of the run. Without predictor.tile, tiles of AUTO_TILE pixels are taken.
    """
    channels = Channels.of(data.get("channels"))
    settings = inference.settings
    tile = settings.tile or AUTO_TILE

    @functools.cache
    def mask() -> Mask:
        tiled = inference if settings.tile else Inference({**vars(settings), "tile": tile}, inference.tta)
        return mask_of(tiled)

    def predict(image: str, path: Path) -> bool:
        if not _is_tiff(image):
            return False
        height, width, _ = read_header(image) if channels is None else channels.header(image)
        if data.get("window") is None and height * width <= max_pixels:
            return False
        predict_raster(mask(), raster_image(image, channels), data.get("mean"), tile, path)
        return True

    return predict


def _is_tiff(path: str) -> bool:
    try:
        with opened(path) as file:
            return tiff.is_tiff(file)
    except DataError:  # reported when it is read
        return False
