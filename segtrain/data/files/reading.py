"""Decoding of image and mask files.

Pillow decodes: it refuses truncated files, which OpenCV would fill with grey. OpenCV decodes complete JPEGs
of colour and grey PNGs, because it is faster, and PNGs of 16-bit colour, of which Pillow keeps 8 bits; `tiff`
decodes the TIFFs. The format is detected from the content and must
be one of FORMATS. The size in the header is checked before anything is decoded. What a file holds beside its
image (more pages, more bands, an animation) is refused, never left out.
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

from segtrain.data.files import bands, opencv, tiff
from segtrain.data.parts import Header
from segtrain.errors import DataError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")
MAX_PIXELS = 64_000_000
ORIENTATION = 0x0112  # EXIF tag
ON_ITS_SIDE = (5, 6, 7, 8)  # values of the tag that swap height and width


def read_image(path: str, max_pixels: int = MAX_PIXELS, limit: str = "data.max_pixels") -> np.ndarray:
    """H×W×3 RGB image, EXIF orientation applied; uint8, or uint16 if the file holds more than 8 bits per
    channel. Greyscale is repeated to three channels, alpha is dropped, fewer than 8 or 16 bits are stretched
    to them. limit: the option that sets max_pixels."""
    with opened(path) as file:
        if tiff.is_tiff(file):
            page = _checked_page(file, path, max_pixels, limit)
            if page.is_read_here:
                check_depth(bands.dtype_of(page), path)
                return turned(
                    bands.colours_of(tiff.read_page(file, page, path), page, path), page.orientation
                )
        with decoder(file, path, max_pixels, limit) as image:
            if _holds_16_bit_colour(image, file):
                return _read_16_bit_colour(image, file)[..., :3]
            if image.format == "JPEG" and image.mode == "RGB":
                orientation = image.getexif().get(ORIENTATION, 1)
                if (colours := opencv.decoded_jpeg(file)) is not None:
                    return turned(colours, orientation)
            return rgb_of(image, path)


def rgb_of(image: Image.Image, what: str) -> np.ndarray:
    """H×W×3 RGB array of a Pillow image, EXIF orientation applied; uint8, or uint16 for mode I;16. what:
    the image's name in error messages."""
    upright = _upright(image)
    if upright.mode.startswith("I;16"):
        return np.repeat(np.asarray(upright).astype(np.uint16)[..., None], 3, axis=2)
    if upright.mode in ("I", "F"):
        check_depth("float32", what)
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")  # directly, Pillow warns that it drops the transparency
    return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    """The Pillow image with its EXIF orientation applied."""
    image.load()  # EXIF may follow the pixels
    # Pillow copies an image that is upright already.
    return image if image.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)


def num_bands(image: Image.Image, file) -> int:
    """How many bands `read_all_bands` gives."""
    if _holds_16_bit_colour(image, file):
        return {2: 3, 4: 2, 6: 4}[_png_header(file)[1]]
    return 3 if image.mode == "P" else len(image.getbands())


def read_all_bands(image: Image.Image, file) -> np.ndarray:
    """H×W×N of a Pillow image that is no TIFF, alpha included, EXIF orientation applied; palettes as
    colours."""
    if _holds_16_bit_colour(image, file):
        values = _read_16_bit_colour(image, file)
        return values[..., [0, 3]] if _png_header(file)[1] == 4 else values
    upright = _upright(image)
    if upright.mode == "P":
        return rgb_of(upright, "")
    values = np.asarray(upright.convert("L") if upright.mode == "1" else upright)
    values = values.astype(np.uint16) if upright.mode.startswith("I;16") else values
    return values[..., None] if values.ndim == 2 else values


def was_cut(image: Image.Image) -> bool:
    """Whether the file of a Pillow image holds more than Pillow keeps: the lower 8 of 16 bits of colour, or
    further bands."""
    if image.format == "TIFF":
        samples = image.tag_v2.get(277, 1)
        return _has_16_bit_bands(image) or samples not in (1, len(image.getbands()))
    if image.format != "PNG":
        return False
    with contextlib.suppress(OSError, AttributeError, ValueError):
        if image.fp is not None:
            return _holds_16_bit_colour(image, image.fp)
        with open(image.filename, "rb") as file:
            return _holds_16_bit_colour(image, file)
    return False


def read_mask(path: str, max_pixels: int | None = MAX_PIXELS, lossy: bool = False) -> np.ndarray:
    """The stored values: H×W uint8 or uint16 (palette files: the indices), or H×W×3 if the mask is RGB."""
    return read_mask_and_palette(path, max_pixels, lossy)[0]


def read_mask_and_palette(
    path: str, max_pixels: int | None = MAX_PIXELS, lossy: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """The mask as `read_mask` returns it, and its palette: N×3 uint8, the RGB colour of each index; None
    if the file has no palette.

    lossy: whether files of lossy compression are read; their values are near those that were written.
    """
    with opened(path) as file:
        if tiff.is_tiff(file):
            page = _checked_page(file, path, max_pixels)
            refuse_lossy(bands.is_lossy(page) and not lossy, path, "TIFF of lossy compression")
            if page.is_read_here:
                values, palette = bands.labels_of(tiff.read_page(file, page, path), page, path)
                return turned(values, page.orientation), palette
        with decoder(file, path, max_pixels) as image:
            refuse_lossy(_is_lossy(image, file) and not lossy, path, image.format.replace("MPO", "JPEG"))
            if _holds_16_bit_colour(image, file):
                return _read_16_bit_colour(image, file)[..., :3], None
            if _is_plain_grey_png(image, file) and (values := opencv.decoded_grey_png(file)) is not None:
                return values, None
            return _labels_of(image, _grey_bits(image, file), path)


def _labels_of(image: Image.Image, depth: int, path: str) -> tuple[np.ndarray, np.ndarray | None]:
    """depth: bits of the greyscale of the file, of which Pillow makes 8."""
    upright = _upright(image)
    if upright.mode == "P":
        return np.array(upright), np.array(upright.getpalette() or [], np.uint8).reshape(-1, 3)
    if upright.mode in ("L", "1"):
        # Pillow scales greyscale of 2 and 4 bits to 0..255; undone, because masks hold class indices.
        values = np.array(upright).astype(np.uint8, copy=False)
        return values // {2: 85, 4: 17}[depth] if depth in (2, 4) else values, None
    if upright.mode == "LA":
        return np.array(upright)[..., 0], None
    if upright.mode.startswith("I;16"):
        return np.asarray(upright).astype(np.uint16), None
    if upright.mode in ("RGB", "RGBA", "RGBX"):
        return np.array(upright.convert("RGB")), None
    raise DataError(
        f"mask {path} has pixels of mode {upright.mode}; allowed: grey, palette, RGB; save it as a PNG of "
        f"one "
        f"of these"
    )


def _is_plain_grey_png(image: Image.Image, file) -> bool:
    """Whether an image is a PNG of 8-bit greyscale without an EXIF orientation."""
    return image.format == "PNG" and _png_header(file) == (8, 0) and not _has_exif_chunk(file)


def refuse_lossy(is_lossy: bool, path: str, kind: str) -> None:
    """DataError for a mask of lossy compression. kind: what it is, in words."""
    if is_lossy:
        raise DataError(
            f"mask {path} is a {kind}, whose compression changes the class numbers; save masks as PNG "
            f"where they are "
            f"made; if there are no others, set data.lossy_masks=true, which takes the nearest class"
        )


def _is_lossy(image: Image.Image, file) -> bool:
    if image.format == "WEBP":
        here = file.tell()
        file.seek(12)
        kind = b""
        while kind not in (b"VP8 ", b"VP8L") and len(header := file.read(8)) == 8:
            kind, length = struct.unpack("<4sI", header)
            file.seek(length + length % 2, os.SEEK_CUR)
        file.seek(here)
        return kind == b"VP8 "
    return image.format in ("JPEG", "MPO")


def without_colour(mask: np.ndarray) -> np.ndarray:
    """H×W if the three channels of an RGB mask are equal everywhere; any other mask unchanged."""
    if mask.ndim == 2 or any((mask[..., 0] != mask[..., channel]).any() for channel in (1, 2)):
        return mask
    return np.ascontiguousarray(mask[..., 0])


def read_header(path: str) -> Header:
    """Size (EXIF orientation applied) and pixel type of an image, without decoding it. All types of more
    than 16 bits are reported as float32. DataError for a file that holds more than one image."""
    with opened(path) as file:
        if tiff.is_tiff(file):
            page = _checked_page(file, path, None)
            size = (page.width, page.height) if page.orientation in ON_ITS_SIDE else (page.height, page.width)
            return Header(*size, bands.dtype_of(page))
        with decoder(file, path, None) as image:
            return oriented_header(image, file)


def oriented_header(image: Image.Image, file) -> Header:
    """The header of a Pillow image that is no TIFF, from its open file."""
    is_16_bit = image.mode.startswith("I;16") or _holds_16_bit_colour(image, file)
    if image.format == "PNG" and "exif" not in image.info and not _has_exif_chunk(file):
        orientation = 1  # else Pillow would decode the whole file to look for a chunk after the pixels
    else:
        orientation = image.getexif().get(ORIENTATION, 1)
    size = (image.width, image.height) if orientation in ON_ITS_SIDE else (image.height, image.width)
    return Header(*size, "uint16" if is_16_bit else "uint8")


def check_pixels(path: str, height: int, width: int, max_pixels: int, limit: str = "data.max_pixels") -> None:
    """DataError if an image has more than `max_pixels` pixels. limit: the option that sets them."""
    if width * height > max_pixels:
        is_raster = limit == "data.max_pixels" and path.lower().endswith((".tif", ".tiff"))
        raise DataError(
            f"{path} has {width}x{height} = {width * height} pixels; allowed: {max_pixels} "
            f"({limit}); make it smaller or raise the limit"
            + (", or with data=folder set data.window=512, which reads TIFFs by windows" if is_raster else "")
        )


def check_depth(dtype: str, what: str) -> None:
    """DataError if an image has 32 bits per channel."""
    if dtype == "float32":
        raise DataError(
            f"{what} holds 32 bits a channel, or signed values; allowed: 8 or 16 bits a channel; convert "
            f"it, or "
            f"train with data.channels set to the number of channels, which measures their mean and std"
        )


@contextlib.contextmanager
def opened(path: str) -> Iterator:
    """A regular file, open for reading. Whatever a decoder raises inside becomes a DataError that names the
    file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{path} is not a regular file; allowed: {', '.join(FORMATS)} files")
        with open(path, "rb") as file:
            yield file
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


@contextlib.contextmanager
def decoder(file, path: str, max_pixels: int | None, limit: str = "data.max_pixels") -> Iterator[Image.Image]:
    """The Pillow image of an open file, not yet decoded. DataError if it is too large or holds several
    frames."""
    with _pillow_limit_off, Image.open(file, formats=FORMATS) as image:
        if max_pixels is not None:
            check_pixels(path, image.height, image.width, max_pixels, limit)
        # The further pictures of a JPEG are previews of the first.
        if image.format in ("PNG", "WEBP", "GIF") and image.is_animated:
            raise DataError(f"{path} is an animation of {image.n_frames} frames; save one frame as a PNG")
        yield image


def _checked_page(file, path: str, max_pixels: int | None, limit: str = "data.max_pixels") -> tiff.Page:
    """The only page of a TIFF. DataError for a size or a layout that is not read."""
    page = bands.one_page(file, path)
    if max_pixels is not None:
        check_pixels(path, page.height, page.width, max_pixels, limit)
    if not page.is_read_here and not bands.is_for_pillow(page):
        raise bands.unreadable(page, path)
    return page


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
    return _png_header(file)[0] if image.mode == "L" and image.format == "PNG" else 8


def _holds_16_bit_colour(image: Image.Image, file) -> bool:
    if image.format != "PNG":
        return False
    depth, colour = _png_header(file)
    return depth == 16 and colour in (2, 4, 6)  # RGB, grey with alpha, RGB with alpha


def _has_16_bit_bands(image: Image.Image) -> bool:
    return tuple(image.tag_v2.get(258, ()))[:2] == (16, 16)


def _read_16_bit_colour(image: Image.Image, file) -> np.ndarray:
    """H×W×3 uint16 of a PNG, or H×W×4 with alpha; grey with alpha is repeated. OpenCV decodes, because
    Pillow keeps 8 of the 16 bits; Pillow has loaded the file before, since OpenCV does not notice truncated
    files."""
    orientation = image.getexif().get(ORIENTATION, 1)  # OpenCV applies none to PNGs
    image.load()
    file.seek(0)
    found = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim != 3 or found.dtype != np.uint16:
        raise ValueError("16-bit colour that OpenCV cannot read")
    return turned(found[..., [2, 1, 0, 3][: found.shape[2]]], orientation)


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """The array with an EXIF orientation applied, as Pillow's exif_transpose does."""
    if orientation in ON_ITS_SIDE:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
