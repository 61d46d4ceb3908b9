"""TIFF files of every layout: bits, bands, planes, strips or tiles, byte order, pages.

Pillow reads one band of a file of separate planes, and 8 of the 16 bits of colour; OpenCV mixes separate
planes up. Here the directory tells the layout (TIFF 6.0), each strip or tile is decompressed, and numpy
arranges the samples. What is compressed with loss, or is no plain grey, RGB or palette, is left to Pillow.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from segtrain.errors import DataError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # + is BigTIFF
NONE, LZW, DEFLATE, OLD_DEFLATE, PACK_BITS, ZSTD = 1, 5, 8, 32946, 32773, 50000
BY_LIBTIFF = (LZW, PACK_BITS, ZSTD)  # whose decompressors work on bytes, whatever the pixels are
DECOMPRESSED = (NONE, DEFLATE, OLD_DEFLATE, *BY_LIBTIFF)
WHITE_IS_0, BLACK_IS_0, RGB, PALETTE = range(4)  # PhotometricInterpretation
KINDS = {1: "u", 2: "i", 3: "f"}  # SampleFormat, as numpy's letters
TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
TAGS = frozenset(
    {254, 256, 257, 258, 259, 262, 266, *(273, 274, 277, 278, 279), 284, 317, 320, *range(322, 326)}
)
TAGS |= {338, 339}
TYPES_OF_PLACES = {2: "s", 3: "H", 12: "d"}
TAGS_OF_PLACES = frozenset({33550, 33922, 34264, 34735, 34736, 34737})  # of the GeoTIFF standard
MAX_PAGES = 4096
MAX_TILE = 1 << 26  # pixels of a tile: larger ones are a damaged number


class Page(NamedTuple):
    """The layout of one image of a file.

    bands: samples a pixel. bits: of a sample. kind: u, i or f. colours: its PhotometricInterpretation.
    alpha: the numbers of the bands that hold opacity. palette: N×3 uint8 or None. chunk: height and width of
    a strip or tile. planes: whether each chunk holds one band alone. order: < or >. offsets, lengths: of
    each chunk, in bytes.
    """

    height: int
    width: int
    bands: int
    bits: int
    kind: str
    colours: int
    alpha: tuple[int, ...]
    palette: np.ndarray | None
    orientation: int
    compression: int
    predictor: int
    chunk: tuple[int, int]
    planes: bool
    order: str
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    fill_order: int

    @property
    def dtype(self) -> np.dtype:
        """The smallest numpy type that holds a sample."""
        size = next((size for size in (8, 16, 32, 64) if self.bits <= size), 64) // 8
        return np.dtype(f"{self.kind}{size}")

    @property
    def is_read_here(self) -> bool:
        """Whether `read_page` reads this layout."""
        whole = self.bits in (8, 16, 32, 64) if self.kind != "f" else self.bits in (16, 32, 64)
        return (
            self.compression in DECOMPRESSED
            and self.colours in (WHITE_IS_0, BLACK_IS_0, RGB, PALETTE)
            and (whole or (self.kind == "u" and self.bits < 16 and self.predictor == 1))
            and self.predictor in ((1, 2, 3) if self.kind == "f" else (1, 2))
            and (self.fill_order == 1 or self.bits % 8 == 0)
        )


def is_tiff(file) -> bool:
    """Whether a file begins as a TIFF does; the file position is restored."""
    start = file.read(4)
    file.seek(-len(start), 1)
    return start in MAGIC


def pages(file, path: str) -> list[Page]:
    """The full images of a TIFF. Smaller copies (overviews, thumbnails) and transparency masks are no content
    of their own and are left out. DataError for a directory that makes no sense."""
    found, seen = [], set()
    for directory in _directories(file, path):
        if directory.offset in seen or len(seen) == MAX_PAGES:
            raise DataError(f"{path} is damaged: its pages go round in a circle; replace or remove it")
        seen.add(directory.offset)
        kind, size = _number(directory, 254, 0), (_number(directory, 257, 0), _number(directory, 256, 0))
        # Bit 0 marks a smaller copy, bit 2 a transparency mask. The first page is the image, whatever it
        # says.
        if not found or not (kind & 4 or (kind & 1 and size != (found[0].height, found[0].width))):
            found.append(_page(directory, path))
    if not found:
        raise DataError(f"{path} is damaged: a TIFF without a page; replace or remove it")
    return found


class Directory(NamedTuple):
    """Where a page's list of tags begins, and the values of those that are known; texts are str."""

    offset: int
    order: str
    tags: dict[int, tuple | str]


def first_directory(file, path: str) -> Directory:
    """The directory of the first page."""
    return next(_directories(file, path), Directory(0, "<", {}))


def _directories(file, path: str) -> Iterator[Directory]:
    """The directories of a file (TIFF 6.0, section 2; BigTIFF has numbers of 8 bytes)."""
    file.seek(0)
    order, kind = ("<" if file.read(2) == b"II" else ">"), file.read(2)
    big = b"+" in kind
    number, counter, entry = ("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")

    def read(offset: int, format: str) -> tuple:
        data = _read_at(file, offset, struct.calcsize(order + format), path)
        return struct.unpack(order + format, data)

    (offset,) = read(8 if big else 4, number)
    while offset:
        (entries,) = read(offset, counter)
        place, tags = offset + struct.calcsize(order + counter), {}
        for _ in range(entries):
            tag, kind, length, value = read(place, entry)
            place += struct.calcsize(order + entry)
            types = TYPES if tag in TAGS else TYPES_OF_PLACES if tag in TAGS_OF_PLACES else {}
            if kind in types:
                size = length * struct.calcsize(order + types[kind])
                if size > len(value):
                    value = _read_at(file, struct.unpack(order + number, value)[0], size, path)
                values = struct.unpack(f"{order}{length}{types[kind]}", value[:size])
                tags[tag] = values[0].rstrip(b"\0").decode("latin-1") if kind == 2 else values
        yield Directory(offset, order, tags)
        (offset,) = read(place, number)


def _read_at(file, offset: int, size: int, path: str) -> bytes:
    file.seek(0, io.SEEK_END)
    if offset + size <= file.tell():
        file.seek(offset)
        return file.read(size)
    raise DataError(f"{path} is truncated: its directory lies beyond its end; replace or remove it")


def _values(directory: Directory, tag: int, default: tuple = ()) -> tuple:
    return directory.tags.get(tag, default)


def _number(directory: Directory, tag: int, default: int) -> int:
    return (_values(directory, tag) or (default,))[0]


def _page(directory: Directory, path: str) -> Page:
    height, width = _number(directory, 257, 0), _number(directory, 256, 0)
    bands = _number(directory, 277, 1)
    bits, kinds = set(_values(directory, 258, (1,))), set(_values(directory, 339, (1,)))
    colours = _number(directory, 262, BLACK_IS_0)
    if min(height, width, bands) < 1 or bands > 65535:
        raise DataError(f"{path} is damaged: {width}x{height} pixels of {bands} bands; replace or remove it")
    if len(bits) > 1 or len(kinds) > 1 or not kinds <= {1, 2, 3, 4} or not all(0 < b <= 64 for b in bits):
        raise DataError(
            f"{path} has bands of different types ({sorted(bits)} bits); allowed: one type; convert them "
            f"to one"
        )
    bit, kind = bits.pop(), KINDS.get(kinds.pop(), "u")
    tiled = 322 in directory.tags
    rows = min(_number(directory, 278, height), height)
    chunk = (_number(directory, 323, 0), _number(directory, 322, 0)) if tiled else (rows, width)
    colour_bands = 3 if colours == RGB else 1
    extra = _values(directory, 338)
    alpha = tuple(colour_bands + place for place, what in enumerate(extra) if what in (1, 2))
    return Page(
        height,
        width,
        bands,
        bit,
        kind,
        colours,
        alpha,
        _palette(directory, bit) if colours == PALETTE else None,
        _number(directory, 274, 1),
        _number(directory, 259, NONE),
        _number(directory, 317, 1),
        chunk,
        bands > 1 and _number(directory, 284, 1) == 2,
        directory.order,
        _values(directory, 324 if tiled else 273),
        _values(directory, 325 if tiled else 279),
        _number(directory, 266, 1),
    )


def _palette(directory: Directory, bits: int) -> np.ndarray | None:
    """N×3 uint8, of 3×N numbers of 16 bits."""
    values = np.array(_values(directory, 320), np.int64)
    if bits > 8 or len(values) != 3 << bits or values.min() < 0 or values.max() > 65535:
        return None
    shift = 8 if values.max() > 255 else 0  # some writers give 8 bits
    return np.ascontiguousarray((values >> shift).astype(np.uint8).reshape(3, -1).T)


def read_page(file, page: Page, path: str) -> np.ndarray:
    """H×W×bands stored values in `page.dtype`, in the byte order of this machine; not turned upright.
    Samples of other than 8, 16, 32 or 64 bits keep their values."""
    down, across = check_chunks(file, page, path)
    height, width = page.chunk
    samples = 1 if page.planes else page.bands
    found = np.zeros((page.height, page.width, page.bands), page.dtype)
    for number, (offset, length) in enumerate(zip(page.offsets, page.lengths, strict=True)):
        if offset == length == 0:
            continue  # a chunk that was never written, whose pixels are 0
        plane, place = divmod(number, down * across)
        top, left = place // across * height, place % across * width
        # The last strip is cut to the image, tiles never are.
        rows = min(height, page.height - top) if width == page.width and across == 1 else height
        row_bytes = (width * samples * page.bits + 7) // 8
        file.seek(offset)
        data = _decompressed(file.read(length), page.compression, rows, row_bytes, path)
        part = _samples(data, page, rows, width, samples)
        bottom, right = min(top + rows, page.height), min(left + width, page.width)
        bands = slice(plane, plane + 1) if page.planes else slice(None)
        found[top:bottom, left:right, bands] = part[: bottom - top, : right - left]
    return found


def check_chunks(file, page: Page, path: str) -> tuple[int, int]:
    """Number of chunks of a plane, down and across. DataError unless as many lie inside of the file."""
    height, width = page.chunk
    if min(height, width) < 1 or height * width > max(MAX_TILE, page.height * page.width):
        raise DataError(f"{path} is damaged: it has tiles of {width}x{height} pixels; replace or remove it")
    down, across = -(-page.height // height), -(-page.width // width)
    planes = page.bands if page.planes else 1
    size = file.seek(0, io.SEEK_END)
    numbers = (*page.offsets, *page.lengths)
    if len(page.offsets) != down * across * planes or len(page.lengths) != len(page.offsets):
        raise DataError(
            f"{path} is damaged: it lists {len(page.offsets)} strips or tiles, and its size needs "
            f"{down * across * planes}; replace or remove it"
        )
    if min(numbers) < 0 or any(
        offset + length > size for offset, length in zip(page.offsets, page.lengths, strict=True)
    ):
        raise DataError(f"{path} is truncated: pixels lie beyond its end; replace or remove it")
    return down, across


def _decompressed(data: bytes, compression: int, rows: int, row_bytes: int, path: str) -> bytes:
    """rows × row_bytes bytes; no more are made, whatever the data claim."""
    wanted = rows * row_bytes
    if compression in (DEFLATE, OLD_DEFLATE):
        data = zlib.decompressobj().decompress(data, wanted)
    elif compression in BY_LIBTIFF:
        data = _by_libtiff(data, compression, rows, row_bytes)
    if len(data) < wanted:
        raise DataError(
            f"{path} is truncated: a strip or tile holds {len(data)} of {wanted} bytes; replace or remove it"
        )
    return data[:wanted]


def _by_libtiff(data: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    """The bytes of a chunk, which libtiff (in Pillow) decompresses as the grey image of a file of one
    strip."""
    tags = [(256, row_bytes), (257, rows), (258, 8), (259, compression), (262, BLACK_IS_0)]
    tags += [(273, 8), (277, 1), (278, rows), (279, len(data))]
    end = 8 + len(data) + len(data) % 2  # a directory begins at an even number
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + directory + bytes(4)
    file = io.BytesIO(b"II*\0" + struct.pack("<I", end) + data + bytes(len(data) % 2) + directory)
    with Image.open(file, formats=("TIFF",)) as image:
        return image.tobytes()


def _samples(data: bytes, page: Page, rows: int, width: int, samples: int) -> np.ndarray:
    """rows×width×samples in `page.dtype`, of the decompressed bytes of a chunk."""
    if page.bits not in (8, 16, 32, 64):
        return _unpacked(data, page, rows, width * samples).reshape(rows, width, samples)
    if page.predictor == 3:
        return _from_float_differences(data, page.dtype, rows, width, samples)
    stored = np.frombuffer(data, page.dtype.newbyteorder(page.order)).reshape(rows, width, samples)
    values = stored.astype(page.dtype)
    if page.predictor == 2:
        whole = values.view(f"u{page.dtype.itemsize}")
        np.cumsum(whole, axis=1, dtype=whole.dtype, out=whole)
    return values


def _unpacked(data: bytes, page: Page, rows: int, number: int) -> np.ndarray:
    """rows×number values of 1 to 15 bits, the highest bit first; each row begins at a byte."""
    lines = np.frombuffer(data, np.uint8).reshape(rows, -1)
    values = np.zeros((rows, number), page.dtype)
    bits = np.unpackbits(lines, axis=1)[:, : number * page.bits].reshape(rows, number, page.bits)
    for place in range(page.bits):
        values = (values << 1) | bits[..., place]
    return values


def _from_float_differences(data: bytes, dtype: np.dtype, rows: int, width: int, samples: int) -> np.ndarray:
    """Undoes predictor 3 (Adobe's TIFF Technical Note 3): each row holds the highest bytes of all its values,
    then the next ones …, as differences."""
    differences = np.frombuffer(data, np.uint8).reshape(rows, -1, samples)
    added = np.cumsum(differences, axis=1, dtype=np.uint8).reshape(rows, dtype.itemsize, width * samples)
    values = np.ascontiguousarray(added.transpose(0, 2, 1)).view(dtype.newbyteorder(">"))
    return values.astype(dtype).reshape(rows, width, samples)
