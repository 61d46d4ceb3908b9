"""Pixels from files, held against arrays that were written and against Pillow."""

import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from segtrain.data.files.reading import (
    read_header,
    read_image,
    read_mask,
    read_mask_and_palette,
    without_colour,
)
from segtrain.errors import DataError


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_files_come_back_exactly(tmp_path, suffix):
    array = noise(13, 17, 3)
    Image.fromarray(array).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    found = read_image(str(tmp_path / f"a.{suffix}"))
    assert found.dtype == np.uint8 and np.array_equal(found, array)


def test_jpeg_is_what_pillow_decodes(tmp_path):
    Image.fromarray(noise(40, 30, 3)).save(tmp_path / "a.jpg")
    assert np.array_equal(read_image(str(tmp_path / "a.jpg")), np.asarray(Image.open(tmp_path / "a.jpg")))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA", "CMYK"])
def test_every_kind_of_image_becomes_three_channels(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(noise(9, 8, 3)).convert(mode).save(path)
    found = read_image(str(path))
    assert found.shape == (9, 8, 3) and found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_colour_and_grey_are_exact(tmp_path, suffix):
    array = noise(11, 7, 3, dtype=np.uint16)
    cv2.imwrite(str(tmp_path / f"c.{suffix}"), array[..., ::-1])
    cv2.imwrite(str(tmp_path / f"g.{suffix}"), array[..., 0])
    colour, grey = read_image(str(tmp_path / f"c.{suffix}")), read_image(str(tmp_path / f"g.{suffix}"))
    assert colour.dtype == np.uint16 and np.array_equal(colour, array)
    assert grey.dtype == np.uint16 and all(np.array_equal(grey[..., k], array[..., 0]) for k in range(3))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_exif_turns_the_image_upright_and_the_size_with_it(tmp_path, orientation, suffix):
    image = Image.fromarray(noise(10, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / f"a.{suffix}")
    image.save(path, exif=exif)
    turns = {
        1: [],
        2: [0],
        3: [3],
        4: [1],
        5: [5],
        6: [4],
        7: [6],
        8: [2],
    }  # Image.Transpose, from the EXIF standard's table
    expected = Image.open(path)
    expected.load()
    expected = Image.frombytes("RGB", expected.size, expected.tobytes())
    for turn in turns[orientation]:
        expected = expected.transpose(Image.Transpose(turn))
    if suffix != "tif":  # Pillow's own TIFF reader turns while loading
        assert np.array_equal(read_image(path), np.asarray(expected))
    assert read_image(path).shape[:2] == read_header(path)[:2] == ((6, 10) if orientation > 4 else (10, 6))


def test_sixteen_bit_colour_is_turned_upright(tmp_path):
    array = noise(4, 6, 3, dtype=np.uint16)
    for orientation in range(1, 9):
        path = tmp_path / f"{orientation}.png"
        cv2.imwrite(str(path), array[..., ::-1])
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = path.read_bytes()
        body = exif.tobytes()[6:]  # without the JPEG marker
        chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
        path.write_bytes(data[:33] + chunk + data[33:])
        Image.fromarray((array >> 8).astype(np.uint8)).save(tmp_path / "8bit.png", exif=exif)
        assert np.array_equal(read_image(str(path)) >> 8, read_image(str(tmp_path / "8bit.png")))


def tiff_of_16_bit(array, orientation):
    """A file written by hand from the TIFF 6.0 specification: header, pixels, bits a channel, directory."""
    pixels, bits = array.astype("<u2").tobytes(), struct.pack("<3H", 16, 16, 16)
    tags = [
        (256, 4, 1, array.shape[1]),
        (257, 4, 1, array.shape[0]),
        (258, 3, 3, 8 + len(pixels)),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
    ]
    tags += [
        (273, 4, 1, 8),
        (274, 3, 1, orientation),
        (277, 3, 1, 3),
        (278, 4, 1, array.shape[0]),
        (279, 4, 1, len(pixels)),
        (284, 3, 1, 1),
    ]
    directory = (
        struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0\0\0\0"
    )
    return b"II*\0" + struct.pack("<I", 8 + len(pixels) + len(bits)) + pixels + bits + directory


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sixteen_bit_tiffs_are_turned_like_those_of_eight(tmp_path, orientation):
    array = noise(4, 6, 3, dtype=np.uint16)
    (tmp_path / "16.tif").write_bytes(tiff_of_16_bit(array, orientation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray((array >> 8).astype(np.uint8)).save(tmp_path / "8.tif", exif=exif)
    found = read_image(str(tmp_path / "16.tif"))
    assert np.array_equal(found >> 8, read_image(str(tmp_path / "8.tif")))
    assert found.shape[:2] == read_header(str(tmp_path / "16.tif"))[:2]


def test_exif_behind_the_pixels_is_seen(tmp_path):
    Image.fromarray(noise(10, 6, 3)).save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    body = exif.tobytes()[6:]
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:-12] + chunk + data[-12:])
    assert (
        read_header(str(tmp_path / "a.png"))[:2] == read_image(str(tmp_path / "a.png")).shape[:2] == (6, 10)
    )


def test_palette_masks_are_indices_not_colours(tmp_path):
    array = noise(5, 6) % 200
    image = Image.frombytes("P", (6, 5), array.tobytes())
    image.putpalette(noise(768).tobytes())
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(str(tmp_path / "m.png")), array)
    indices, palette = read_mask_and_palette(str(tmp_path / "m.png"))
    assert np.array_equal(palette[indices], np.asarray(Image.open(tmp_path / "m.png").convert("RGB")))


def test_masks_of_three_equal_channels_keep_all_their_bits(tmp_path):
    grey = noise(5, 6, dtype=np.uint16)
    mask = np.repeat(grey[..., None], 3, axis=2)
    cv2.imwrite(str(tmp_path / "16.png"), mask)
    assert np.array_equal(without_colour(read_mask(str(tmp_path / "16.png"))), grey)
    mask[3, 4, 1] ^= 1
    assert np.array_equal(without_colour(mask), mask)
    assert np.array_equal(without_colour(grey), grey)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_keep_their_numbers(tmp_path, bits):
    """Grey PNGs of 2 and 4 bits, which image libraries stretch to 0..255."""
    values = np.arange(8 // bits * 3).reshape(3, -1) % 2**bits
    packed = [sum(int(v) << (8 - bits * (k + 1)) for k, v in enumerate(row)) for row in values]
    raw = b"".join(b"\0" + bytes([byte]) for byte in packed)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", values.shape[1], 3, bits, 0, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "m.png").write_bytes(png)
    assert np.array_equal(read_mask(str(tmp_path / "m.png")), values)


def test_sixteen_bit_masks_are_not_cut(tmp_path):
    array = noise(5, 6, dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "m.png"), array)
    found = read_mask(str(tmp_path / "m.png"))
    assert found.dtype == np.uint16 and np.array_equal(found, array)


def test_jpeg_masks_are_refused(tmp_path):
    Image.fromarray(noise(8, 8)).save(tmp_path / "m.jpg")
    with pytest.raises(DataError, match=r"m\.jpg is a JPEG.*save masks as PNG.*data\.lossy_masks"):
        read_mask(str(tmp_path / "m.jpg"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_are_named(tmp_path, suffix, share):
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(buffer.getvalue()[: int(share * len(buffer.getvalue()))])
    with pytest.raises(DataError, match=rf"cut\.{suffix}"):
        read_image(str(path))


def test_truncated_sixteen_bit_colour_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), noise(64, 64, 3, dtype=np.uint16))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
        read_image(str(tmp_path / "a.png"))


def test_flipped_bytes_never_escape_as_another_error(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(noise(32, 32, 3)).save(buffer, "PNG")
    rng = np.random.default_rng(0)
    path = tmp_path / "a.png"
    for _ in range(60):
        data = bytearray(buffer.getvalue())
        for place in rng.integers(0, len(data), 3):
            data[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(data))
        for read in (read_image, read_mask, read_header):
            try:
                read(str(path))
            except DataError as error:
                assert "a.png" in str(error)


def test_the_format_is_told_by_content_and_from_a_short_list(tmp_path):
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "really_png.jpg", "PNG")
    assert read_image(str(tmp_path / "really_png.jpg")).shape == (8, 8, 3)
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "really_ppm.png", "PPM")
    with pytest.raises(DataError, match=r"really_ppm\.png is not an image.*PNG, JPEG"):
        read_image(str(tmp_path / "really_ppm.png"))


def test_the_pixel_limit_holds_before_decoding(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(noise(20, 20, 3)).save(path)
    data = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", 60000, 60000) + data[24:29]
    path.write_bytes(
        data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    )  # claims 3600 Mpx
    with pytest.raises(DataError, match=r"a\.png has 60000x60000 .* allowed: 64000000 \(data\.max_pixels\)"):
        read_image(str(path))
    Image.fromarray(noise(20, 20, 3)).save(path)
    with pytest.raises(DataError, match="allowed: 399"):
        read_image(str(path), max_pixels=399)
    assert read_image(str(path), max_pixels=400).shape == (20, 20, 3)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png is not a regular file"):
        read_image(str(tmp_path / "pipe.png"))
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        read_image(str(tmp_path / "gone.png"))


def test_threads_leave_pillows_limit_as_it_was(tmp_path, monkeypatch):
    """Pillow refuses above twice its limit, which is the whole process's; ours holds in its place."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    paths = [str(tmp_path / f"{number}.png") for number in range(40)]
    for path in paths:
        Image.new("RGB", (40, 40)).save(path)
    with ThreadPoolExecutor(8) as pool:
        assert {image.shape for image in pool.map(read_image, paths * 5)} == {(40, 40, 3)}
    assert Image.MAX_IMAGE_PIXELS == 100
