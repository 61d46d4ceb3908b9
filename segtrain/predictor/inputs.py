"""Conversion of the Python interface's inputs (paths, PIL images, arrays) to pixel arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from segtrain.data.files.channels import Channels
from segtrain.data.files.reading import read_image, rgb_of, was_cut
from segtrain.errors import ConfigError, DataError

PIXELS = ("uint8", "uint16", "float32", "float64")

READ_RGB = read_image
"""Path of an image -> H×W×3 pixels."""


def reader_of(data: Mapping) -> Callable[[str], np.ndarray]:
    """Path of an image -> H×W×K pixels, as the data set of this config (the section `data`) reads its
    images."""
    channels = Channels.of(data.get("channels"))
    return READ_RGB if channels is None else channels.read


def pixels_of(image, channels: int, read: Callable[[str], np.ndarray] = READ_RGB) -> np.ndarray:
    """K×H×W uint8, uint16 or float32 of a path, a PIL image or an array.

    channels: K, that of the network. read: path -> H×W×K. ConfigError for anything that the network would
    misread, DataError for a file or a PIL image that cannot be decoded.
    """
    if isinstance(image, (str, os.PathLike)):
        pixels = read(image)
    elif isinstance(image, Image.Image):
        pixels = _of_pillow(image)
    else:
        pixels = _of_array(image, channels)
    if pixels.ndim != 3 or pixels.shape[2] != channels or not pixels.size:
        raise ConfigError(
            f"the image has shape {pixels.shape}; the network wants height, width, {channels}, none of them 0"
        )
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _of_pillow(image: Image.Image) -> np.ndarray:
    if was_cut(image):
        raise ConfigError(
            "the image has 16 bits a channel, of which PIL keeps 8, or bands that PIL leaves out; give the "
            "path of its file"
        )
    try:
        return rgb_of(image, "the image")
    except DataError:
        raise
    except Exception as error:  # as for files: decoders of damaged ones raise anything
        raise DataError(f"the image cannot be decoded ({type(error).__name__}: {error})") from error


def _of_array(image, channels: int) -> np.ndarray:
    if not hasattr(image, "__array__"):
        hint = "; several go to batch(images)" if isinstance(image, (list, tuple)) else ""
        raise ConfigError(
            f"the image is of type {type(image).__name__}; allowed: a path, a PIL image or an array{hint}"
        )
    try:
        pixels = np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, or with a gradient
        raise ConfigError(f"the image cannot become an array: {error}") from error
    if pixels.dtype.name not in PIXELS:
        raise ConfigError(
            f"the image has pixels of {pixels.dtype}; allowed: {', '.join(PIXELS)} (floats on the scale 0..1)"
        )
    if pixels.dtype.kind == "f" and pixels.size and channels == 3:
        least, most = pixels.min(), pixels.max()  # both are NaN if any pixel is
        if not (least >= 0 and most <= 1):
            raise ConfigError(
                f"the image has values from {least:g} to {most:g}; allowed for floats: 0 to 1, such as "
                f"uint8 / 255"
            )
    if pixels.ndim == 2:
        # Grey is repeated, as that of files.
        pixels = np.repeat(pixels[..., None], channels if channels == 3 else 1, axis=2)
    return pixels.astype(np.float32 if pixels.dtype.kind == "f" else pixels.dtype.newbyteorder("="))
