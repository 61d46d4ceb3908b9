"""Files that OpenCV decodes: equal to Pillow's reading, and only where they are complete."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from segtrain.data.files import opencv
from segtrain.data.files.reading import read_image, read_mask
from segtrain.errors import DataError


def _photograph(seed: int = 0) -> np.ndarray:
    """37×61×3 uint8: smooth colours and noise."""
    rows, columns = np.mgrid[:37, :61]
    colours = np.stack([rows * 6, columns * 4, (rows + columns) * 2], -1)
    return (
        (colours + np.random.default_rng(seed).integers(0, 30, colours.shape)).clip(0, 255).astype(np.uint8)
    )


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("keep_rgb", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_read_as_pillow_reads_them(tmp_path, subsampling, progressive, keep_rgb, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / "a.jpg")
    Image.fromarray(_photograph()).save(
        path,
        progressive=progressive,
        exif=exif,
        keep_rgb=keep_rgb,
        subsampling=0 if keep_rgb else subsampling,
    )
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image))
    with open(path, "rb") as file:
        assert opencv.decoded_jpeg(file) is not None
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_modes_are_read_as_pillow_reads_them(tmp_path, mode):
    path = str(tmp_path / "a.jpg")
    Image.fromarray(_photograph()).convert(mode).save(path)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path), np.array(image.convert("RGB")))


def test_a_jpeg_cut_behind_its_preview_is_refused(tmp_path):
    """The preview holds an end-of-image marker of its own."""
    preview, whole = io.BytesIO(), io.BytesIO()
    Image.fromarray(_photograph(1)).save(preview, "JPEG")
    Image.fromarray(_photograph()).save(whole, "JPEG", exif=b"Exif\0\0" + preview.getvalue())
    data = whole.getvalue()
    assert data.count(opencv.END_OF_IMAGE) == 2
    path = tmp_path / "a.jpg"
    for end in range(len(data) - 600, len(data) - 2, 7):
        path.write_bytes(data[:end])
        with pytest.raises(DataError, match=r"a\.jpg cannot be decoded"):
            read_image(str(path))


def test_grey_pngs_are_read_as_pillow_reads_them(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (37, 61), dtype=np.uint8)
    path = str(tmp_path / "a.png")
    Image.fromarray(values).save(path)
    with open(path, "rb") as file:
        assert opencv.decoded_grey_png(file) is not None
    np.testing.assert_array_equal(read_mask(path), values)


@pytest.mark.parametrize("place", ["pixels", "checksum", "last chunk"])
def test_opencv_gets_no_png_with_a_damaged_chunk(place):
    whole = io.BytesIO()
    Image.fromarray(_photograph()[..., 0]).save(whole, "PNG")
    data = bytearray(whole.getvalue())
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    assert zlib.crc32(data[start - 4 : start + length]) == int.from_bytes(data[start + length :][:4], "big")
    if place == "last chunk":
        data = data[: data.index(b"IEND") - 4]
    else:
        data[start + (length if place == "checksum" else length // 2)] ^= 1
    assert opencv.decoded_grey_png(io.BytesIO(data)) is None
