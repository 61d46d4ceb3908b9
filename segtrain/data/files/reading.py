"""Pixels from files: images as H×W×3, masks as the numbers that are stored.

Pillow decodes (it refuses truncated files, which OpenCV fills with grey), the format is told by the content
and held against a short list, and the size in the header is checked before anything is decoded.
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
    """H×W×3 RGB, upright: uint8, or uint16 if the file holds 16 bits a channel. Grey is repeated, alpha
    dropped."""
    with _opened(path, max_pixels) as (image, file):
        if _holds_16_bit_colour(image, file):
            return _read_16_bit_colour(image, file)
        return rgb_of(image, path)


def rgb_of(image: Image.Image, what: str) -> np.ndarray:
    """H×W×3 RGB of a Pillow image, upright: uint8, uint16 of one in mode I;16. what: its name in errors."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return np.repeat(np.asarray(upright).astype(np.uint16)[..., None], 3, axis=2)
    if upright.mode in ("I", "F"):
        check_depth("float32", what)
    return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))


def was_cut_to_8_bit(image: Image.Image) -> bool:
    """Whether an image that Pillow opened comes from a file with 16-bit colour, of which it keeps 8."""
    if image.format != "PNG":
        return _holds_16_bit_colour(image, None)
    with contextlib.suppress(OSError, AttributeError, ValueError):
        if image.fp is not None:
            return _holds_16_bit_colour(image, image.fp)
        with open(image.filename, "rb") as file:
            return _holds_16_bit_colour(image, file)
    return False


def read_mask(path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The numbers as they are stored: H×W uint8 or uint16 (palette files: the indices), H×W×3 of them if the
    mask is RGB."""
    return read_mask_and_palette(path, max_pixels)[0]


def read_mask_and_palette(path: str, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, np.ndarray | None]:
    """What `read_mask` gives, and the colours of the indices, N×3 uint8, if the file has a palette."""
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
            # Pillow stretches grey of 2 and 4 bits to 0..255; the stored number is what counts here.
            return np.array(upright).astype(np.uint8) // {2: 85, 4: 17}.get(depth, 1), None
        if upright.mode.startswith("I;16"):
            return np.asarray(upright).astype(np.uint16), None
        if upright.mode in ("RGB", "RGBA"):
            return np.array(upright.convert("RGB")), None
        raise DataError(
            f"mask {path} has pixels of mode {upright.mode}; allowed: grey of 1 to 16 bits, palette, RGB"
        )


def without_colour(mask: np.ndarray) -> np.ndarray:
    """The numbers H×W of an RGB mask that is grey everywhere; any other mask as it is."""
    if mask.ndim == 2 or any((mask[..., 0] != mask[..., channel]).any() for channel in (1, 2)):
        return mask
    return np.ascontiguousarray(mask[..., 0])


def read_header(path: str) -> Header:
    """Size of the upright image and type of its pixels ("float32" stands for all of 32 bits), without
    decoding it."""
    with _opened(path, max_pixels=None) as (image, file):
        if image.mode.startswith("I;16") or _holds_16_bit_colour(image, file):
            dtype = "uint16"
        else:
            dtype = "float32" if image.mode in ("I", "F") else "uint8"
        if image.format == "TIFF":
            orientation = 1  # Pillow turns TIFFs itself
        elif image.format == "PNG" and "exif" not in image.info and not _has_exif_chunk(file):
            orientation = 1  # Pillow would decode the whole file to look for a chunk behind the pixels
        else:
            orientation = image.getexif().get(ORIENTATION, 1)
        height, width = image.height, image.width
        return Header(width, height, dtype) if orientation in ON_ITS_SIDE else Header(height, width, dtype)


def check_pixels(path: str, height: int, width: int, max_pixels: int) -> None:
    """DataError for more than `max_pixels`."""
    if width * height > max_pixels:
        raise DataError(
            f"{path} has {width}x{height} = {width * height} pixels; allowed: {max_pixels} "
            f"(data.max_pixels); make it smaller or raise the limit"
        )


def check_depth(dtype: str, what: str) -> None:
    """DataError for an image of 32 bits a channel."""
    if dtype == "float32":
        raise DataError(f"{what} holds 32 bits a channel; allowed: 8 or 16 bits a channel; convert it")


@contextlib.contextmanager
def _opened(path: str, max_pixels: int | None) -> Iterator[tuple[Image.Image, object]]:
    """The Pillow image, not yet decoded, and its file; whatever the decoder raises becomes a DataError that
    names the file."""
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
    """While a block in any thread is entered, Pillow has no limit of pixels of its own: ours holds, which the
    user can set."""

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
    """(bits a channel, colour type) of a PNG; the position in the file stays."""
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
    """Pillow cuts 16-bit colour to 8, so OpenCV reads it, after Pillow has gone through the file and found it
    whole."""
    # OpenCV turns TIFFs itself, PNGs not.
    orientation = 1 if image.format == "TIFF" else image.getexif().get(ORIENTATION, 1)
    image.load()
    file.seek(0)
    found = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim != 3 or found.dtype != np.uint16:
        raise ValueError("16-bit colour that OpenCV cannot read")
    return _turned(np.ascontiguousarray(found[..., 2::-1]), orientation)


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """What EXIF asks for, as Pillow's exif_transpose does it."""
    if orientation in ON_ITS_SIDE:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
