"""Windows of TIFFs, read by rasterio (GDAL): memory is set by the window, not by the file.

rasterio gives the stored values; `bands` decides what they mean, as for files that are read whole, so that a
window holds the pixels that the whole image would.
"""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from segtrain.data.files import bands, tiff
from segtrain.data.files.channels import Channels, as_pixels
from segtrain.data.files.reading import check_depth, opened, read_header, refuse_lossy
from segtrain.data.files.statistics import FULL_SCALE
from segtrain.errors import ConfigError, DataError
from segtrain.sample import Window

CACHE_BYTES = 64 << 20
"""Decoded tiles that GDAL keeps; by default these are 5 % of the machine's memory."""
MAX_BLOCK = 1 << 24
"""Pixels of a strip or tile: of a larger one, reading a window would take the memory of the file."""
SAME_PLACE_PX = 0.01


@functools.cache
def rasterio_module():
    """rasterio, which the extra `geo` installs; ConfigError without it."""
    try:
        import rasterio
        import rasterio.windows
    except ImportError as error:
        raise ConfigError(
            "windows of large TIFFs are read by rasterio, which is not installed; pip install 'segtrain[geo]'"
        ) from error
    # Once for the process: warnings.catch_warnings is not for threads.
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    return rasterio


@contextlib.contextmanager
def dataset(path: str) -> Iterator:
    """rasterio's dataset of a TIFF, open for reading. What rasterio raises inside is a DataError."""
    rasterio = rasterio_module()
    try:
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
            rasterio.open(os.path.abspath(path), driver="GTiff") as source,
        ):
            yield source
    except rasterio.errors.RasterioError as error:
        raise DataError(
            f"{path} cannot be read ({error.__cause__ or error}); replace or remove it"
        ) from error


class Raster(NamedTuple):
    """A TIFF of one page. page: its layout, without the places of its tiles. has_empty: whether pixels may be
    without content, by a nodata value, an alpha band or a mask."""

    path: str
    page: tiff.Page
    has_empty: bool

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.page.height, self.page.width

    def read(self, window: Window, numbers: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
        """The stored values of a window, h×w×N, and where they are content, h×w bool. numbers: of the bands,
        from 1; (): all."""
        with dataset(self.path) as source:
            values = source.read(list(numbers) or None, window=_place(window))  # N×h×w
            valid = _valid(source, window) if self.has_empty else _everywhere(window)
        return np.ascontiguousarray(values.transpose(1, 2, 0)), valid

    def valid(self, window: Window) -> np.ndarray:
        """h×w bool: where pixels of a window have content."""
        if not self.has_empty:
            return _everywhere(window)
        with dataset(self.path) as source:
            return _valid(source, window)

    def labels(self, window: Window) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Of a mask: its values and palette as `bands.labels_of` returns them, and where there are any, h×w
        bool. The other values are those of some pixel that has one."""
        values, valid = self.read(window)
        if valid.any():
            values[~valid] = values[valid][0]
        else:
            values[:] = 0
        return *bands.labels_of(values, self.page, self.path), valid


def raster(path: str) -> Raster:
    """The raster at `path`. DataError for a file that windows cannot be read from."""
    with opened(path) as file:
        if not tiff.is_tiff(file):
            raise DataError(
                f"{path} is no TIFF, and windows are read from TIFFs alone; convert it, e.g. gdal_translate "
                f"-co TILED=YES OLD NEW.tif, or set data.window=null"
            )
        page = bands.one_page(file, path)
    if page.orientation != 1:
        raise DataError(
            f"{path} has an orientation tag that turns it, and windows are read from upright TIFFs; save it "
            f"upright"
        )
    height, width = page.chunk
    if height * width > MAX_BLOCK and page.compression != tiff.NONE:
        raise DataError(
            f"{path} is compressed in blocks of {width}x{height} pixels, each of which is read whole; "
            f"allowed: {MAX_BLOCK} pixels; save it in tiles, e.g. gdal_translate -co TILED=YES "
            f"-co COMPRESS=DEFLATE OLD NEW"
        )
    with dataset(path) as source:
        all_valid = rasterio_module().enums.MaskFlags.all_valid
        has_empty = any(all_valid not in flags for flags in source.mask_flag_enums)
    return Raster(path, page._replace(offsets=(), lengths=()), has_empty)


def mask_raster(path: str, lossy: bool) -> Raster:
    """The raster of a mask. lossy: whether values may be near those that were written."""
    mask = raster(path)
    refuse_lossy(bands.is_lossy(mask.page) and not lossy, path, "TIFF of lossy compression")
    return mask


class RasterImage(NamedTuple):
    """An image whose channels lie in one TIFF, or in several of one size. channels: how they are read; None:
    as RGB. dtype: of its pixels, numpy's name."""

    rasters: tuple[Raster, ...]
    channels: Channels | None
    dtype: str

    @property
    def path(self) -> str:
        """Of the file that the image is known by."""
        return self.rasters[0].path

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.rasters[0].size

    def read(self, window: Window, mean: Sequence[float] | None) -> tuple[np.ndarray, np.ndarray]:
        """A window h×w×K, and where it has content, h×w bool. mean: of each channel as in `Normalisation`,
        which the other pixels are filled with; None: 0."""
        parts, valid = [], _everywhere(window)
        for one in self.rasters:
            values, there = one.read(window, () if self.channels is None else self.channels.bands)
            values[~there] = 0  # nodata may be NaN
            valid &= there
            if self.channels is None:
                parts.append(bands.colours_of(values, one.page, one.path))
            else:
                parts.append(as_pixels(bands.full_scale(values, one.page), one.path))
        image = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        if not valid.all():
            scale = FULL_SCALE.get(image.dtype.name, 1.0)
            fill = np.zeros(image.shape[2]) if mean is None else scale * np.asarray(mean)
            image[~valid] = fill if image.dtype.kind == "f" else fill.round()
        return image, valid

    def valid(self, window: Window) -> np.ndarray:
        """h×w bool: where all channels of a window have content."""
        return np.logical_and.reduce([one.valid(window) for one in self.rasters])


def raster_image(path: str, channels: Channels | None) -> RasterImage:
    """The image at `path`. DataError for a file that windows cannot be read from."""
    files = [path] if channels is None else channels.files(path)
    rasters = tuple(map(raster, files))
    for other in rasters[1:]:
        check_same_place(path, other.path, "channel")
    header = read_header(path) if channels is None else channels.header(path)
    if channels is None:
        check_depth(header.dtype, path)
    elif any(one.page.palette is not None for one in rasters):
        raise DataError(f"{path} has a palette, and channels hold values; save it as grey or RGB")
    return RasterImage(rasters, channels, header.dtype)


def check_same_place(image: str, other: str, kind: str) -> None:
    """DataError unless two TIFFs have the pixels of one place: the same size and, where both have them, the
    same coordinate system and transformation. kind: what the other one is to the image."""
    with dataset(image) as one, dataset(other) as two:
        differ = []
        if one.shape != two.shape:
            sizes = [f"{height}x{width}" for height, width in (one.shape, two.shape)]
            differ.append(f"size ({' and '.join(sizes)}, height x width)")
        if one.crs and two.crs and one.crs != two.crs:
            differ.append(f"CRS ({_in_words(one.crs)} and {_in_words(two.crs)})")
        if not (one.transform.is_identity or two.transform.is_identity):
            corners = ((0, 0), (one.width, 0), (0, one.height), (one.width, one.height))
            # Pixels of the mask -> places -> pixels of the image, 3×3 each.
            there, here = (np.reshape(source.transform, (3, 3)) for source in (two, one))
            ends = np.column_stack([corners, np.ones(4)]).T  # 3×4
            off = np.abs(np.linalg.solve(here, there @ ends) - ends).max()
            if not off <= SAME_PLACE_PX:
                differ.append(f"transform (by up to {off:.4g} pixels)")
    if differ:
        raise DataError(
            f"image {image} and its {kind} {other} differ in {' and '.join(differ)}; they must show the same "
            f"pixels; warp one to the grid of the other, e.g. by gdalwarp, or correct the pair"
        )


def _in_words(crs) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else crs.to_string()[:60]


def _place(window: Window):
    return rasterio_module().windows.Window(window.left, window.top, window.width, window.height)


def _valid(source, window: Window) -> np.ndarray:
    return source.dataset_mask(window=_place(window)) > 0


def _everywhere(window: Window) -> np.ndarray:
    return np.ones((window.height, window.width), bool)
