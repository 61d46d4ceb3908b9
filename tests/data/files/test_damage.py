"""Damaged and hostile files: each ends in a DataError that names the file, quickly, in every reader."""

import io
import os
import struct
import time
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from segtrain.data.files.channels import Channels
from segtrain.data.files.reading import read_header, read_image, read_mask
from segtrain.errors import DataError

LONGEST_S = 5
ROUNDS = 16


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def pillow(array, format, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **options)
    return buffer.getvalue()


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def array_file(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


GREY16, RGB, RGB16, FIVE = (noise(33, 29, *rest, dtype=kind) for rest, kind in (
    ((), np.uint16), ((3,), np.uint8), ((3,), np.uint16), ((5,), np.uint16)))  # fmt: skip
FILES = {
    "grey16.png": pillow(GREY16, "PNG"),
    "rgb.png": pillow(RGB, "PNG"),
    "palette.png": pillow(RGB[..., 0], "PNG", bits=8),
    "a.jpg": pillow(RGB, "JPEG"),
    "a.gif": pillow(RGB[..., 0], "GIF"),
    "a.bmp": pillow(RGB, "BMP"),
    "a.webp": pillow(RGB, "WEBP", lossless=True),
    "lzw.tif": pillow(RGB, "TIFF", compression="tiff_lzw"),
    "jpeg.tif": pillow(RGB, "TIFF", compression="jpeg"),
    "fax.tif": pillow(RGB[..., 0] > 99, "TIFF", compression="group4"),
    "planes.tif": tiff(RGB16.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
    "tiles.tif": tiff(RGB16, photometric="rgb", tile=(16, 16), compression="zlib", predictor=True),
    "big.tif": tiff(RGB16, photometric="rgb", bigtiff=True, byteorder=">", rowsperstrip=5),
    "pages.tif": tiff(FIVE.transpose(2, 0, 1), photometric="minisblack"),
    "five.npy": array_file(FIVE),
}
READERS = {
    "image": read_image,
    "mask": read_mask,
    "lossy mask": lambda path: read_mask(path, lossy=True),
    "header": read_header,
    "channels": Channels.of(5).read,
    "bands": Channels.of([1, 2]).read,
    "channel header": Channels.of(5).header,
}


def check(path):
    """Each reader gives an array or a header, or a DataError that names the file; how many did the latter."""
    refused = 0
    for name, read in READERS.items():
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(str(path))
        except DataError as error:
            refused += 1
            assert path.name in str(error) and "\n" not in str(error)[:80], (name, error)
        assert time.perf_counter() - start < LONGEST_S, (name, path)
    return refused


@pytest.mark.parametrize("name", FILES)
def test_truncated_files(tmp_path, name):
    path, data = tmp_path / name, FILES[name]
    for sixteenth in range(ROUNDS):
        path.write_bytes(data[: len(data) * sixteenth // ROUNDS])
        check(path)
    assert sixteenth == ROUNDS - 1
    path.write_bytes(data[: len(data) // 2])
    readers = {"five.npy": "channels", "pages.tif": "channels", "jpeg.tif": "image", "a.jpg": "image"}
    with pytest.raises(DataError, match=name):
        READERS[readers.get(name, "mask")](str(path))


@pytest.mark.parametrize("name", FILES)
def test_flipped_bits(tmp_path, name):
    rng, path = np.random.default_rng(1), tmp_path / name
    for round in range(3 * ROUNDS):
        data = bytearray(FILES[name])
        # Headers and directories, at both ends, decide most.
        places = rng.integers(0, len(data), 3) if round % 3 else rng.integers(0, min(200, len(data)), 2)
        places = len(data) - 1 - places if round % 3 == 1 else places
        for place in places:
            data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        check(path)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".tif")])
def test_every_number_of_a_tiff_directory(tmp_path, name):
    """Each tag in turn with values that a size, a count or an offset must not have."""
    data, path = FILES[name], tmp_path / name
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        order = file.byteorder
        tags = [
            (tag.valueoffset, tag.dataformat[-1])
            for tag in file.pages[0].tags
            if tag.dataformat[-1] in "BHIQ"
        ]
    for place, kind in tags:
        size = struct.calcsize(kind)
        for value in (0, 1, 3, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 99):
            changed = bytearray(data)
            changed[place : place + size] = struct.pack(order + kind, value)
            path.write_bytes(changed)
            check(path)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"II*\0", b"MM\0+", b"\x93NUMPY", b"<!DOCTYPE html><html></html>", b"GIF89a"]
)
def test_what_is_no_image_is_refused_by_every_reader(tmp_path, content):
    for suffix in ("png", "tif", "npy", "jpg"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(content)
        assert check(path) == len(READERS)


def test_what_is_no_file_is_refused_by_every_reader(tmp_path):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink(tmp_path / "pipe.png", tmp_path / "to_pipe.png")
    os.symlink(tmp_path / "loop.png", tmp_path / "loop.png")
    os.symlink("/dev/zero", tmp_path / "zero.tif")
    os.symlink(tmp_path / "nothing", tmp_path / "gone.tif")
    for path in tmp_path.iterdir():
        assert check(path) == len(READERS), path


def test_bombs_are_refused_before_they_are_decoded(tmp_path):
    """Small files that claim very many pixels, bands, pages or tiles."""
    rgb = bytearray(FILES["rgb.png"])
    rgb[16:24] = struct.pack(">II", 200_000, 200_000)
    (tmp_path / "a.png").write_bytes(rgb)
    gif = bytearray(FILES["a.gif"])
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    (tmp_path / "a.gif").write_bytes(gif)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<u2", "fortran_order": False, "shape": (9**9, 9**9, 5)}
    )
    (tmp_path / "a.npy").write_bytes(header.getvalue())
    for number, changes in enumerate(({256: 2**31, 257: 2**31}, {277: 65535}, {322: 2**30, 323: 2**30})):
        data = bytearray(FILES["tiles.tif"])
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            for tag, value in changes.items():
                found = file.pages[0].tags[tag]
                size = struct.calcsize(found.dataformat[-1])
                packed = struct.pack("<I", value % 2 ** (8 * size))[:size]
                data[found.valueoffset : found.valueoffset + size] = packed
        (tmp_path / f"a{number}.tif").write_bytes(data)
    circle = bytearray(FILES["pages.tif"])
    with tifffile.TiffFile(io.BytesIO(circle)) as file:
        first, last = file.pages[0].offset, file.pages[-1].offset
    entries = struct.unpack_from("<H", circle, last)[0]
    struct.pack_into("<I", circle, last + 2 + 12 * entries, first)
    (tmp_path / "circle.tif").write_bytes(circle)
    for path in tmp_path.iterdir():
        refused = check(path)
        assert refused >= len(READERS) - 2, (path, refused)  # a header alone may be read
