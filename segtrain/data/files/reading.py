"""Decoding of image and mask files.

Pillow decodes: it refuses truncated files, which OpenCV would fill with grey. The format is detected from
the content and must be one of FORMATS. The size in the header is checked before anything is decoded.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import threading
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image, ImageOps

from segtrain.data.parts import Header
from segtrain.errors import DataError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
MAX_PIXELS = 64_000_000
ORIENTATION = 0x0112  # EXIF tag
ON_ITS_SIDE = (5, 6, 7, 8)  # values of the tag that swap height and width


def read_image(path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """H×W×3 RGB image, EXIF orientation applied; uint8, or uint16 if the file holds 16 bits per channel.
    Greyscale is repeated to three channels, alpha is dropped."""
    with _opened(path, max_pixels) as (image, file):
        if _holds_16_bit_colour(image, file):
            return _read_16_bit_colour(image, file)
        return rgb_of(image, path)


def rgb_of(image: Image.Image, what: str) -> np.ndarray:
    """H×W×3 RGB array of a Pillow image, EXIF orientation applied; uint8, or uint16 for mode I;16. what:
    the image's name in error messages."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return np.repeat(np.asarray(upright).astype(np.uint16)[..., None], 3, axis=2)
    if upright.mode in ("I", "F"):
        check_depth("float32", what)
    return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))


def was_cut_to_8_bit(image: Image.Image) -> bool:
    """Whether the file of a Pillow image holds 16-bit colour, of which Pillow keeps the upper 8 bits."""
    if image.format != "PNG":
        return _holds_16_bit_colour(image, None)
    with contextlib.suppress(OSError, AttributeError, ValueError):
        if image.fp is not None:
            return _holds_16_bit_colour(image, image.fp)
        with open(image.filename, "rb") as file:
            return _holds_16_bit_colour(image, file)
    return False


def read_mask(path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The stored values: H×W uint8 or uint16 (palette files: the indices), or H×W×3 if the mask is RGB."""
    return read_mask_and_palette(path, max_pixels)[0]


def read_mask_and_palette(path: str, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, np.ndarray | None]:
    """The mask as `read_mask` returns it, and its palette: N×3 uint8, the RGB colour of each index; None
    if the file has no palette."""
    with _opened(path, max_pixels) as (image, file):
        if image.format in ("JPEG", "MPO"):
            raise DataError(
                f"mask {path} is a JPEG, whose compression changes the class numbers; save it as PNG"
            )
        if _holds_16_bit_colour(image, file):
            return _read_16_bit_colour(image, file), None
        depth = _grey_bits(image, file)
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "P":
            return np.array(upright), np.array(upright.getpalette() or [], np.uint8).reshape(-1, 3)
        if upright.mode in ("L", "1"):
            # Pillow scales greyscale of 2 and 4 bits to 0..255; undone, because masks hold class indices.
            return np.array(upright).astype(np.uint8) // {2: 85, 4: 17}.get(depth, 1), None
        if upright.mode.startswith("I;16"):
            return np.asarray(upright).astype(np.uint16), None
        if upright.mode in ("RGB", "RGBA"):
            return np.array(upright.convert("RGB")), None
        raise DataError(
            f"mask {path} has pixels of mode {upright.mode}; allowed: grey of 1 to 16 bits, palette, RGB"
        )


def without_colour(mask: np.ndarray) -> np.ndarray:
    """H×W if the three channels of an RGB mask are equal everywhere; any other mask unchanged."""
    if mask.ndim == 2 or any((mask[..., 0] != mask[..., channel]).any() for channel in (1, 2)):
        return mask
    return np.ascontiguousarray(mask[..., 0])


def read_header(path: str) -> Header:
    """Size (EXIF orientation applied) and pixel type of an image, without decoding it. All 32-bit types
    are reported as float32."""
    with _opened(path, max_pixels=None) as (image, file):
        if image.mode.startswith("I;16") or _holds_16_bit_colour(image, file):
            dtype = "uint16"
        else:
            dtype = "float32" if image.mode in ("I", "F") else "uint8"
        if image.format == "TIFF":
            orientation = 1  # Pillow has applied the orientation of TIFFs already
        elif image.format == "PNG" and "exif" not in image.info and not _has_exif_chunk(file):
            orientation = 1  # else Pillow would decode the whole file to look for a chunk after the pixels
        else:
            orientation = image.getexif().get(ORIENTATION, 1)
        height, width = image.height, image.width
        return Header(width, height, dtype) if orientation in ON_ITS_SIDE else Header(height, width, dtype)


def check_pixels(path: str, height: int, width: int, max_pixels: int) -> None:
    """DataError if an image has more than `max_pixels` pixels."""
    if width * height > max_pixels:
        raise DataError(
            f"{path} has {width}x{height} = {width * height} pixels; allowed: {max_pixels} "
            f"(data.max_pixels); make it smaller or raise the limit"
        )


def check_depth(dtype: str, what: str) -> None:
    """DataError if an image has 32 bits per channel."""
    if dtype == "float32":
        raise DataError(f"{what} holds 32 bits a channel; allowed: 8 or 16 bits a channel; convert it")


@contextlib.contextmanager
def _opened(path: str, max_pixels: int | None) -> Iterator[tuple[Image.Image, object]]:
    """The Pillow image, not yet decoded, and its open file. Whatever a decoder raises becomes a DataError
    that names the file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{path} is not a regular file; allowed: {', '.join(FORMATS)} files")
        with open(path, "rb") as file, _pillow_limit_off, Image.open(file, formats=FORMATS) as image:
            if max_pixels is not None:
                check_pixels(path, image.height, image.width, max_pixels)
            yield image, file
    except (DataError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise DataError(
            f"{path} is not an image that can be read; allowed: {', '.join(FORMATS)} (by content)"
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist (any more)") from error
    except (
        Exception
    ) as error:  # decoders of damaged files raise anything: SyntaxError, struct.error, IndexError …
        raise DataError(
            f"{path} cannot be decoded ({type(error).__name__}: {error}); replace or remove it"
        ) from error


class _PillowLimitOff:
    """Switches Pillow's own pixel limit off while any thread is inside the block: data.max_pixels takes
    its place."""

    def __init__(self):
        self._lock, self._entered, self._limit = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self._lock:
            if self._entered == 0:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._entered += 1

    def __exit__(self, *_) -> None:
        with self._lock:
            self._entered -= 1
            if self._entered == 0:
                Image.MAX_IMAGE_PIXELS = self._limit


_pillow_limit_off = _PillowLimitOff()


def _png_header(file) -> tuple[int, int]:
    """(bits per channel, colour type) of a PNG; the file position is restored."""
    here = file.tell()
    file.seek(24)
    depth, colour = file.read(2)
    file.seek(here)
    return depth, colour


def _has_exif_chunk(file) -> bool:
    here = file.tell()
    file.seek(8)
    found = False
    while not found and len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        found = kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # text chunks may carry EXIF too
        file.seek(length + 4, os.SEEK_CUR)
    file.seek(here)
    return found


def _grey_bits(image: Image.Image, file) -> int:
    if image.mode != "L":
        return 8
    if image.format == "PNG":
        return _png_header(file)[0]
    if image.format == "TIFF":
        return image.tag_v2.get(258, (8,))[0]  # BitsPerSample
    return 8


def _holds_16_bit_colour(image: Image.Image, file) -> bool:
    if image.format == "PNG":
        depth, colour = _png_header(file)
        return depth == 16 and colour in (2, 6)
    return image.format == "TIFF" and tuple(image.tag_v2.get(258, ()))[:3] == (16, 16, 16)


def _read_16_bit_colour(image: Image.Image, file) -> np.ndarray:
    """H×W×3 uint16. OpenCV decodes, because Pillow keeps 8 of the 16 bits; Pillow has loaded the file
    before, since OpenCV does not notice truncated files."""
    # OpenCV applies the orientation of TIFFs, not of PNGs.
    orientation = 1 if image.format == "TIFF" else image.getexif().get(ORIENTATION, 1)
    image.load()
    file.seek(0)
    found = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim != 3 or found.dtype != np.uint16:
        raise ValueError("16-bit colour that OpenCV cannot read")
    return _turned(np.ascontiguousarray(found[..., 2::-1]), orientation)


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """The array with an EXIF orientation applied, as Pillow's exif_transpose does."""
    if orientation in ON_ITS_SIDE:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
