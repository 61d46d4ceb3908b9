"""Every layout of the formats that are read, held against a second decoder: tifffile, GDAL, OpenCV or
Pillow."""

import io
import itertools
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segtrain.data.files.bands import channels_of
from segtrain.data.files.reading import read_header, read_image, read_mask, read_mask_and_palette, was_cut
from segtrain.data.files.tiff import pages, read_page
from segtrain.errors import DataError

SIZE = (37, 41)


def noise(*shape, dtype=np.uint8, below=None, seed=0):
    top = below or min(np.iinfo(dtype).max if np.dtype(dtype).kind in "ui" else 30000, 1 << 40) + 1
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def channels(path):
    with open(path, "rb") as file:
        return channels_of(file, pages(file, str(path)), str(path))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
def test_tiffs_of_tifffile(tmp_path, dtype, bands):
    path = tmp_path / "a.tif"
    for planes, tile, order, zipped in itertools.product(
        (False, True), (None, (16, 32)), "<>", (False, True)
    ):
        for predictor in (False, True) if zipped and not dtype.startswith("float") else (False,):
            array = noise(*SIZE, bands, dtype=dtype)
            stored = array[..., 0] if bands == 1 else array.transpose(2, 0, 1) if planes else array
            tifffile.imwrite(
                path,
                stored,
                photometric="rgb" if bands in (3, 4) else "minisblack",
                planarconfig=None if bands == 1 else "separate" if planes else "contig",
                extrasamples=["unassalpha"] if bands == 4 else None,
                byteorder=order,
                bigtiff=order == ">" and planes,
                compression="zlib" if zipped else None,
                predictor=predictor,
                tile=tile,
                rowsperstrip=None if tile else 7,
            )
            read = tifffile.imread(path)  # a second decoder of what was written
            assert np.array_equal(read, stored)
            found = channels(path)
            assert found.dtype == array.dtype and np.array_equal(found, array)
            if dtype in ("uint8", "uint16") and bands in (1, 3, 4):
                colour = array[..., :3] if bands > 1 else np.repeat(array, 3, axis=2)
                assert np.array_equal(read_image(str(path)), colour)
                assert read_header(str(path)) == (*SIZE, dtype)
                mask = array[..., 0] if bands == 1 else array[..., :3]
                assert np.array_equal(read_mask(str(path)), mask)
            elif bands in (1, 3, 4):
                with pytest.raises(DataError, match=r"a\.tif holds 32 bits.*data\.channels"):
                    read_image(str(path))
            else:
                with pytest.raises(DataError, match=rf"{bands} bands.*data\.channels={bands}|32 bits"):
                    read_image(str(path))
                with pytest.raises(DataError, match=rf"mask .*a\.tif has {bands} bands.*gdal_translate -b 1"):
                    read_mask(str(path))


@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits", "zstd", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiffs_of_gdal(tmp_path, dtype, compression):
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    for bands, interleave, tile, order in itertools.product(
        (1, 3, 6), ("pixel", "band"), (False, True), ("LITTLE", "BIG")
    ):
        for predictor in (1, 2, 3) if compression not in ("none", "packbits") else (1,):
            if predictor == 3 and dtype != "float32":
                continue
            array = noise(bands, *SIZE, dtype=dtype)
            layout = {"blockxsize": 16, "blockysize": 32} if tile else {"blockysize": 5}
            options = {
                "compress": compression,
                "predictor": predictor,
                "interleave": interleave,
                "tiled": tile,
            }
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the picture lies nowhere on Earth
                with rasterio.open(
                    path, "w", driver="GTiff", height=SIZE[0], width=SIZE[1], count=bands, dtype=dtype,
                    ENDIANNESS=order, **options, **layout,
                ) as file:  # fmt: skip
                    file.write(array)
                with rasterio.open(path) as file:
                    assert np.array_equal(file.read(), array)
            assert np.array_equal(channels(path), array.transpose(1, 2, 0))


@pytest.mark.parametrize("bits", range(1, 17))
def test_tiffs_of_every_depth(tmp_path, bits):
    """GDAL packs the values; images are stretched to 8 or 16 bits, masks keep their numbers."""
    rasterio = pytest.importorskip("rasterio")
    path, dtype = tmp_path / "a.tif", np.uint8 if bits <= 8 else np.uint16
    for bands, interleave in ((1, "pixel"), (3, "pixel"), (3, "band")):
        array = noise(bands, *SIZE, dtype=dtype, below=1 << bits)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(
                path, "w", driver="GTiff", height=SIZE[0], width=SIZE[1], count=bands, dtype=dtype,
                NBITS=bits, interleave=interleave, compress="lzw",
            ) as file:  # fmt: skip
                file.write(array)
            with rasterio.open(path) as file:
                assert np.array_equal(file.read(), array)
        values = array.transpose(1, 2, 0)
        assert np.array_equal(read_mask(str(path)), values[..., 0] if bands == 1 else values)
        found, full = read_image(str(path)), np.iinfo(dtype).max
        assert found.dtype == dtype and read_header(str(path)) == (*SIZE, found.dtype.name)
        stretched = np.round(values / ((1 << bits) - 1) * full)
        assert np.array_equal(found, np.broadcast_to(stretched, (*SIZE, 3)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize(
    "compression", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg", "group4"]
)
def test_tiffs_of_pillow(tmp_path, mode, compression):
    path = tmp_path / "a.tif"
    image = Image.fromarray(noise(*SIZE, 3)).convert(mode)
    if (compression == "group4" and mode != "1") or (compression == "jpeg" and mode in ("1", "P", "RGBA")):
        pytest.skip("is not written")
    image.save(path, compression=compression)
    expected = Image.open(path)
    assert np.array_equal(read_image(str(path)), np.asarray(expected.convert("RGB")))
    assert read_header(str(path)) == (*SIZE, "uint8")
    if compression == "jpeg" or mode == "YCbCr":
        with pytest.raises(DataError, match=r"lossy compression.*data\.lossy_masks"):
            read_mask(str(path))
    elif mode == "CMYK":
        with pytest.raises(DataError, match="mode CMYK"):
            read_mask(str(path))
    else:
        values, palette = read_mask_and_palette(str(path))
        kept = expected.convert("RGB") if mode == "RGBA" else expected
        assert np.array_equal(values, np.asarray(kept).astype(np.uint8))
        if mode == "P":
            assert np.array_equal(palette[values], np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bands", [1, 3])
def test_tiffs_are_turned_upright(tmp_path, orientation, bands):
    path = tmp_path / "a.tif"
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = noise(*SIZE)
    array = noise(*SIZE, 3) if bands == 3 else np.repeat(grey[..., None], 3, axis=2)
    Image.fromarray(array).save(path, exif=exif)
    upright = np.asarray(Image.open(path).convert("RGB"))  # Pillow turns TIFFs, and scrambles grey ones
    Image.fromarray(array if bands == 3 else grey).save(path, exif=exif)
    assert np.array_equal(read_image(str(path)), upright)
    assert np.array_equal(read_mask(str(path)), upright if bands == 3 else upright[..., 0])
    assert read_header(str(path))[:2] == upright.shape[:2]


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_sixteen_bit_colour_of_separate_planes_is_that_of_interleaved_ones(tmp_path, planes):
    rows, columns = np.mgrid[:48, :64]
    picture = np.stack([rows * 1000, columns * 900, (rows + columns) * 500], -1).astype(np.uint16)
    stored = picture.transpose(2, 0, 1) if planes == "separate" else picture
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planes)
    assert np.array_equal(read_image(str(tmp_path / "a.tif")), picture)
    with Image.open(tmp_path / "a.tif") as image:
        assert was_cut(image)


def test_pages_are_channels_or_refused(tmp_path):
    array = noise(3, *SIZE, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    for read in (read_image, read_mask, read_header):
        with pytest.raises(DataError, match=r"a\.tif has 3 pages.*data\.channels=3"):
            read(str(tmp_path / "a.tif"))
    second = cv2.imreadmulti(str(tmp_path / "a.tif"), flags=cv2.IMREAD_UNCHANGED)[1]
    assert np.array_equal(channels(tmp_path / "a.tif"), np.stack(second, axis=-1))


def test_overviews_are_no_pages(tmp_path):
    array = noise(64, 64, 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(array, photometric="rgb")
        file.write(array[::2, ::2], photometric="rgb", subfiletype=1)
    assert np.array_equal(read_image(str(tmp_path / "a.tif")), array)


def test_a_fourth_band_that_is_no_alpha_is_not_left_out(tmp_path):
    array = noise(*SIZE, 4)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unspecified"])
    with pytest.raises(DataError, match=r"a\.tif has 4 bands.*data\.channels=4.*data\.channels=\[1,2,3\]"):
        read_image(str(tmp_path / "a.tif"))


def test_layouts_that_are_not_read_are_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(*SIZE, 3), photometric="cielab", planarconfig="contig")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    place = data.index(struct.pack("<HHI", 259, 3, 1))
    data[place + 8 : place + 10] = struct.pack("<H", 34887)  # LERC
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.tif is a TIFF of a layout.*compression 34887.*gdal_translate"):
        read_image(str(tmp_path / "a.tif"))


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png(values, bits, colour, interlaced, extra=b""):
    """A PNG written by hand from its specification; values: H×W×S."""
    height, width = values.shape[:2]

    def lines(part):
        if not part.size:
            return b""
        if bits == 16:
            rows = part.astype(">u2").reshape(len(part), -1).view(np.uint8)
        else:
            flat = part.reshape(len(part), -1, 1)
            rows = np.packbits(((flat >> np.arange(bits)[::-1]) & 1).reshape(len(part), -1), axis=1)
        return b"".join(b"\0" + row.tobytes() for row in rows)

    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    raw = b"".join(lines(values[top::down, left::right]) for top, left, down, right in passes)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    end = chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + end


PNGS = [(0, bits) for bits in (1, 2, 4, 8, 16)] + [(3, bits) for bits in (1, 2, 4, 8)]
PNGS += [(colour, bits) for colour in (2, 4, 6) for bits in (8, 16)]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "bits"), PNGS)
def test_pngs_of_every_kind(tmp_path, colour, bits, interlaced):
    path, samples = tmp_path / "a.png", {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    values = noise(*SIZE, samples, dtype=np.uint16, below=1 << bits)
    entries = noise(1 << min(bits, 8), 3, seed=1)
    transparent = {
        0: chunk(b"tRNS", struct.pack(">H", int(values[0, 0, 0]))),
        2: chunk(b"tRNS", struct.pack(">3H", *map(int, values[0, 0]))) if samples == 3 else b"",
        3: chunk(b"tRNS", bytes(range(len(entries)))),
    }
    for has_transparency in (False, True) if colour in transparent else (False,):
        extra = chunk(b"PLTE", entries.tobytes()) if colour == 3 else b""
        extra += transparent[colour] if has_transparency else b""
        path.write_bytes(png(values, bits, colour, interlaced, extra))
        dtype, full = (np.uint16, 65535) if bits == 16 else (np.uint8, 255)
        plain = values[..., :3] if samples >= 3 else np.repeat(values[..., :1], 3, axis=2)
        scaled = entries[values[..., 0]] if colour == 3 else plain * np.uint16(full // ((1 << bits) - 1))
        found = read_image(str(path))
        assert found.dtype == dtype and np.array_equal(found, scaled)
        second = cv2.imdecode(
            np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH
        )
        assert np.array_equal(found, second)
        assert read_header(str(path)) == (*SIZE, found.dtype.name)
        mask, palette = read_mask_and_palette(str(path))
        assert np.array_equal(mask if mask.ndim == 2 else mask[..., 0], values[..., 0])
        assert (palette is not None) == (colour == 3)


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_single_frames_are_read_and_animations_refused(tmp_path, format, options):
    frames = [Image.fromarray(noise(*SIZE, below=20, seed=seed)).convert("P") for seed in range(3)]
    path = tmp_path / f"a.{format.lower()}"
    frames[0].save(path, format, **options)
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(read_image(str(path)), expected)
    mask, palette = read_mask_and_palette(str(path))
    assert np.array_equal(mask if palette is None else palette[mask], expected)
    frames[0].save(path, format, save_all=True, append_images=frames[1:], **options)
    for read in (read_image, read_mask, read_header):
        with pytest.raises(DataError, match=r"a\.\w+ is an animation of 3 frames"):
            read(str(path))


def test_lossy_masks_are_refused_whatever_the_format(tmp_path):
    for name, options in (("a.webp", {"quality": 80}), ("b.webp", {"quality": 80, "exif": Image.Exif()})):
        Image.fromarray(noise(*SIZE, 3)).save(tmp_path / name, **options)
        with pytest.raises(DataError, match=rf"{name[0]}\.webp is a WEBP.*data\.lossy_masks"):
            read_mask(str(tmp_path / name))
    Image.fromarray(noise(*SIZE, 3)).save(tmp_path / "c.webp", lossless=True, exif=Image.Exif())
    assert np.array_equal(read_mask(str(tmp_path / "c.webp")), noise(*SIZE, 3))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_bitmaps(tmp_path, mode):
    image = Image.fromarray(noise(*SIZE, 3)).convert(mode)
    image.save(tmp_path / "a.bmp")
    colour = np.asarray(Image.open(tmp_path / "a.bmp").convert("RGB"))
    assert np.array_equal(read_image(str(tmp_path / "a.bmp")), colour)
    second = cv2.imread(str(tmp_path / "a.bmp"), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(colour, second)
    expected = image.convert("RGB") if mode == "RGBA" else image
    assert np.array_equal(read_mask(str(tmp_path / "a.bmp")), np.asarray(expected).astype(np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs(tmp_path, mode, progressive):
    Image.fromarray(cv2.GaussianBlur(noise(*SIZE, 3), (0, 0), 3)).convert(mode).save(
        tmp_path / "a.jpg", progressive=progressive, quality=95
    )
    found = read_image(str(tmp_path / "a.jpg")).astype(int)
    second = cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_COLOR_RGB).astype(int)
    assert np.abs(found - second).max() <= 3  # decoders may differ in rounding


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int32", "uint32"])
def test_masks_of_other_types_are_read_where_they_hold_whole_numbers(tmp_path, dtype):
    array = noise(*SIZE, dtype=dtype, below=300)
    tifffile.imwrite(tmp_path / "m.tif", array, photometric="minisblack")
    found = read_mask(str(tmp_path / "m.tif"))
    assert found.dtype == np.uint16 and np.array_equal(found, array)
    array[3, 4] = -1 if dtype != "uint32" else 70000
    tifffile.imwrite(tmp_path / "m.tif", array, photometric="minisblack")
    with pytest.raises(DataError, match=r"m\.tif holds \w+ values that are no class: (-1|70000) \(1 px\)"):
        read_mask(str(tmp_path / "m.tif"))


def test_float_masks_with_fractions_or_nan_are_refused(tmp_path):
    for value, shown in ((0.5, "0.5"), (np.nan, "nan")):
        array = np.zeros(SIZE, np.float32)
        array[:2] = value
        tifffile.imwrite(tmp_path / "m.tif", array)
        with pytest.raises(DataError, match=rf"no class: {shown} \(82 px\).*data\.ignore_value"):
            read_mask(str(tmp_path / "m.tif"))


def test_grey_masks_with_alpha_keep_the_grey(tmp_path):
    grey = noise(*SIZE)
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(noise(*SIZE, seed=1))]).save(tmp_path / "m.png")
    assert np.array_equal(np.broadcast_to(grey[..., None], (*SIZE, 3)), read_image(str(tmp_path / "m.png")))
    assert np.array_equal(read_mask(str(tmp_path / "m.png")), grey)


def test_no_more_is_decompressed_than_the_size_needs(tmp_path):
    """A strip of 20 MB of zeros that says it is of 16 rows."""
    tifffile.imwrite(tmp_path / "a.tif", noise(16, 16), compression="zlib", rowsperstrip=16)
    data = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages[0]
        offset, length = page.tags[273].valueoffset, page.tags[279].valueoffset
    body = zlib.compress(bytes(20_000_000))
    data = bytearray(data + body)
    data[offset : offset + 4] = struct.pack("<I", len(data) - len(body))
    data[length : length + 4] = struct.pack("<I", len(body))
    file = io.BytesIO(data)
    (layout,) = pages(file, "a.tif")
    assert not read_page(file, layout, "a.tif").any()
