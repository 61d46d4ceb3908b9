"""What the bands of a TIFF mean: a colour image, a mask, or K channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segtrain.data.files import tiff
from segtrain.data.files.tiff import PALETTE, WHITE_IS_0, Page
from segtrain.errors import DataError
from segtrain.text import count

LOSSY = (6, 7, 34712, 34892, 50001)  # JPEG (old, new), JPEG 2000, lossy JPEG, WebP
YCBCR = 6  # PhotometricInterpretation of colour differences
BY_PILLOW = (2, 3, 4, 6, 7, 50001)  # fax, JPEG, WebP


def one_page(file, path: str) -> Page:
    """The page of a TIFF that has a single one."""
    pages = tiff.pages(file, path)
    if len(pages) > 1:
        raise DataError(
            f"{path} has {len(pages)} pages, and one image is expected; save one page to a file of its own, "
            f"or set data.channels={sum(page.bands for page in pages)} if the pages of an image are channels"
        )
    return pages[0]


def dtype_of(page: Page) -> str:
    """The pixel type of an image with these bands: uint8, uint16, or float32 for all that hold more."""
    return page.dtype.name if page.dtype.name in ("uint8", "uint16") else "float32"


def colours_of(values: np.ndarray, page: Page, path: str) -> np.ndarray:
    """H×W×3 RGB, uint8 or uint16, of the stored values H×W×bands of a page or of a part of it. Grey is
    repeated, alpha is dropped. DataError for bands that are no colours."""
    plain = _plain_bands(page)
    if len(plain) not in (1, 3):
        numbers = ",".join(str(band + 1) for band in plain[:3])
        raise DataError(
            f"{path} has {count(len(plain), 'band')}, alpha aside, and grey or RGB is expected; train with "
            f"data.channels={page.bands} to use all bands"
            + (f", or data.channels=[{numbers}] for three of them" if len(plain) > 3 else "")
        )
    values = full_scale(values, page)
    if page.palette is not None:
        return page.palette[values[..., 0]]
    return values[..., plain] if len(plain) == 3 else np.repeat(values[..., :1], 3, axis=2)


def full_scale(values: np.ndarray, page: Page) -> np.ndarray:
    """The values with 0 as black, and those of fewer than 8 or 16 bits stretched to the range of their
    type."""
    most = (1 << page.bits) - 1
    if page.colours == PALETTE or page.kind != "u" or page.bits > 16:
        return values
    values = most - values if page.colours == WHITE_IS_0 else values
    full = np.iinfo(page.dtype).max
    return (
        values if most == full else ((values.astype(np.uint32) * full + most // 2) // most).astype(page.dtype)
    )


def labels_of(values: np.ndarray, page: Page, path: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The values of a mask, H×W or H×W×3 (RGB), uint8 or uint16, and its palette, of the stored values
    H×W×bands of a page or of a part of it."""
    plain = _plain_bands(page)
    if len(plain) not in (1, 3):
        raise DataError(
            f"mask {path} has {count(len(plain), 'band')}, and a mask has one number or one colour a "
            f"pixel; keep "
            f"the band that holds the classes, e.g. gdal_translate -b 1 OLD.tif NEW.tif"
        )
    if page.colours == WHITE_IS_0 and page.kind == "u":
        values = values.dtype.type((1 << page.bits) - 1) - values
    values = values[..., 0] if len(plain) == 1 else values[..., plain]
    return as_labels(values, path), page.palette


def as_labels(values: np.ndarray, path: str) -> np.ndarray:
    """Whole numbers 0..65535 of any type as uint8 or uint16. DataError for others."""
    if values.dtype in (np.uint8, np.uint16):
        return values
    with np.errstate(invalid="ignore"):
        wrong = ~((values >= 0) & (values <= 65535) & (values == np.floor(values)))  # NaN is wrong too
    if wrong.any():
        found, counts = np.unique(values[wrong], return_counts=True)
        shown = ", ".join(
            f"{value:g} ({number} px)" for value, number in zip(found[:5], counts[:5], strict=True)
        )
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise DataError(
            f"mask {path} holds {values.dtype.name} values that are no class: {shown}{more}; allowed: "
            f"whole numbers "
            f"from 0 to 65535; give unlabelled pixels one such number, and name it as data.ignore_value"
        )
    return values.astype(np.uint16)


def channels_of(file, pages: Sequence[Page], path: str) -> np.ndarray:
    """H×W×K: all bands of all pages, in their order, of one size and type. Palettes are refused: an index is
    no measured value."""
    first = pages[0]
    for page in pages:
        if (page.height, page.width, page.dtype) != (first.height, first.width, first.dtype):
            raise DataError(
                f"{path} has pages of {first.width}x{first.height} {first.dtype.name} and of {page.width}x"
                f"{page.height} {page.dtype.name}; channels are of one size and type; save them alike"
            )
        if page.palette is not None:
            raise DataError(f"{path} has a palette, and channels hold values; save it as grey or RGB")
        if not page.is_read_here:
            raise unreadable(page, path)
    return np.concatenate(
        [full_scale(tiff.read_page(file, page, path), page) for page in pages], axis=2
    )  # H×W×K


def is_lossy(page: Page) -> bool:
    """Whether values are near those that were written, not equal: by compression, or as colour
    differences."""
    return page.compression in LOSSY or page.colours == YCBCR


def is_for_pillow(page: Page) -> bool:
    """Whether Pillow reads a layout right that `tiff.read_page` does not: interleaved bytes, or bits in
    black and white, compressed or coloured by other rules."""
    if page.is_read_here or (page.planes and page.bands > 1) or page.kind != "u" or page.bands > 4:
        return False
    known = page.compression in (*tiff.DECOMPRESSED, *BY_PILLOW)
    return known and page.bits in (1, 8) and page.bands != 2 and page.colours in (0, 1, 2, 3, 5, 6, 8)


def unreadable(page: Page, path: str) -> DataError:
    """The error of a layout that nobody reads."""
    kind = {"u": "unsigned", "i": "signed", "f": "float"}[page.kind]
    return DataError(
        f"{path} is a TIFF of a layout that is not read: {count(page.bands, 'band')} of {page.bits} bits "
        f"({kind}), "
        f"compression {page.compression}, colours {page.colours}; allowed: grey, RGB, palette, plain or "
        f"compressed "
        f"by deflate, LZW, PackBits or zstd; save it anew, e.g. gdal_translate -co COMPRESS=DEFLATE OLD NEW"
    )


def _plain_bands(page: Page) -> list[int]:
    """Numbers of the bands that are not opacity."""
    return [band for band in range(page.bands) if band not in page.alpha]
