"""Predictions of georeferenced TIFFs: where on Earth their pixels lie is kept."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from segtrain.data.files import tiff
from segtrain.data.files.reading import opened
from segtrain.run.storage import written
from segtrain.sample import no_label

SHORT, DOUBLE, ASCII = 3, 12, 2  # types of TIFF tags
TYPES = {33550: DOUBLE, 33922: DOUBLE, 34264: DOUBLE, 34735: SHORT, 34736: DOUBLE, 34737: ASCII}
"""The tags of the GeoTIFF standard (OGC 19-008r4) with their types: pixel scale, tie points, transformation,
keys with their numbers and texts."""
GDAL_NODATA = 42113


def write_georeferenced(path: Path, values: np.ndarray, image: str, nodata: int) -> bool:
    """PATH.tif: H×W uint8 or float32 predictions as a GeoTIFF, if their image is one. nodata: the value of
    pixels without a class."""
    reference = georeference(image) if values.ndim == 2 else None
    if reference is None:
        return False
    content = georeferenced(values, reference, no_label(values.dtype, nodata))
    with written(path.with_name(f"{path.name}.tif"), len(content)) as file:
        file.write(content)
    return True


def georeference(path: str) -> dict[int, tuple | str] | None:
    """The GeoTIFF tags of an image; None if the file has none, or if its orientation tag turns it."""
    with opened(path) as file:
        if not tiff.is_tiff(file):
            return None
        directory = tiff.first_directory(file, path)
    found = {tag: directory.tags[tag] for tag in TYPES if tag in directory.tags}
    upright = directory.tags.get(274, (1,))[0] == 1
    return found if upright and 34735 in found else None


def georeferenced(values: np.ndarray, reference: dict[int, tuple | str], nodata: float) -> bytes:
    """A GeoTIFF of H×W values with the tags of `georeference`. nodata: the value of pixels without a
    class."""
    tags = ImageFileDirectory_v2()
    for tag, value in reference.items():
        tags.tagtype[tag] = TYPES[tag]
        tags[tag] = value
    tags.tagtype[GDAL_NODATA] = ASCII
    tags[GDAL_NODATA] = str(nodata)
    encoded = io.BytesIO()
    Image.fromarray(values).save(encoded, "TIFF", tiffinfo=tags, compression="tiff_adobe_deflate")
    return encoded.getvalue()
