"""Samples that are windows of rasters, held against rasterio's own reading of the whole files."""

import sys

import numpy as np
import pytest

from segtrain.data import DATA
from segtrain.data.files import raster
from segtrain.data.files.windows import pieces
from segtrain.data.selection import folds_of, names_and_groups
from segtrain.errors import ConfigError, DataError
from segtrain.sample import IGNORE

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
HEIGHT, WIDTH, SIDE = 150, 130, 64
TILED = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5.3e6)}


def write_raster(path, values, palette=None, valid=None, **options):
    """values: bands×H×W."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    layout = {"count": count, "height": height, "width": width, "dtype": values.dtype.name}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", **layout, **{**PLACE, **TILED, **options}) as file,
    ):
        file.write(values)
        if palette is not None:
            file.write_colormap(1, palette)
        if valid is not None:
            file.write_mask(valid)


def write_pair(root, name="scene", image=None, mask=None, image_options=None, **mask_options):
    rng = np.random.default_rng(len(name))
    image = rng.integers(1, 256, (3, HEIGHT, WIDTH), np.uint8) if image is None else image
    mask = rng.integers(0, 3, (1, *image.shape[1:]), np.uint8) if mask is None else mask
    write_raster(root / "images" / f"{name}.tif", image, **(image_options or {}))
    write_raster(root / "masks" / f"{name}.tif", mask, **mask_options)
    return image, mask


def build(root, unread_in=(), **options):
    chosen = {"name": "folder", "root": str(root), "window": SIDE, "classes": ["a", "b", "c"]}
    return DATA.build({**chosen, **options}, unread_in=unread_in)


def one(root, **options):
    """The split of a folder with a single raster."""
    (split,) = build(root, **options).splits.values()
    return split


def assembled(split, height=HEIGHT, width=WIDTH):
    """The raster's image and target put together from the windows; each pixel may have one label at most."""
    image, target, times = None, np.full((height, width), IGNORE, np.uint8), np.zeros((height, width), int)
    for index, piece in zip(range(len(split)), pieces(height, width, SIDE), strict=True):
        top, left, rows, columns = piece.window
        sample, place = split[index], np.s_[top : top + rows, left : left + columns]
        assert sample.name == f"scene_r{top}_c{left}" and sample.image.shape[:2] == (rows, columns)
        assert split.size(index) == (rows, columns)
        assert np.array_equal(split.target(index), sample.target)
        image = (
            np.zeros((height, width, sample.image.shape[2]), sample.image.dtype) if image is None else image
        )
        image[place] = sample.image
        labelled = sample.target != IGNORE
        target[place][labelled] = sample.target[labelled]
        times[place] += labelled
    assert times.max() == 1
    return image, target


def test_windows_hold_every_pixel_and_label_it_once(tmp_path):
    image, mask = write_pair(tmp_path)
    split = one(tmp_path)
    assert [split.size(index) for index in range(len(split))] == [(SIDE, SIDE)] * 9
    found, target = assembled(split)
    assert np.array_equal(found, image.transpose(1, 2, 0)) and np.array_equal(target, mask[0])
    assert {header.dtype for header in split.headers(range(9))} == {"uint8"}


@pytest.mark.parametrize("size", [(SIDE, SIDE), (25, 150), (2 * SIDE, SIDE + 1), (1, 1)])
def test_rasters_of_any_size_are_covered(tmp_path, size):
    write_pair(tmp_path, mask=np.ones((1, *size), np.uint8), image=np.ones((3, *size), np.uint8))
    found, target = assembled(one(tmp_path), *size)
    assert (found == 1).all() and (target == 1).all()


def test_windows_mean_what_whole_images_mean(tmp_path):
    """Grey of 16 bits, strips, planes, an alpha band, palettes and colours are read alike in both ways."""
    rng = np.random.default_rng(0)
    opaque = np.full((1, HEIGHT, WIDTH), 255, np.uint8)
    colours = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)
    index = rng.integers(0, 3, (1, HEIGHT, WIDTH), np.uint8)
    rgb = rng.integers(0, 256, (3, HEIGHT, WIDTH), np.uint8)
    classes = tmp_path / "classes.txt"
    classes.write_text("a 200 0 0\nb 0 200 0\nc 0 0 200\n")
    cases = {
        "grey": ({"image": rng.integers(0, 65536, (1, HEIGHT, WIDTH), np.uint16)}, {}),
        "strips": ({"image": rgb, "image_options": {"tiled": False, "interleave": "band"}}, {}),
        "alpha": ({"image": np.concatenate([rgb, opaque]), "image_options": {"alpha": "yes"}}, {}),
        "bits": ({"image": rgb[:1] % 16, "image_options": {"nbits": 4}}, {}),
        "palette": ({"mask": index, "palette": {n: (*c, 255) for n, c in enumerate(colours.tolist())}}, {}),
        "colours": ({"mask": colours[index[0]].transpose(2, 0, 1), "photometric": "rgb"}, {}),
        "floats": ({"mask": index.astype(np.float32)}, {}),
        "channels": ({"image": np.concatenate([rgb, rgb[:2]])}, {"channels": [5, 1]}),
        "channels of bits": ({"image": rgb[:2] % 16, "image_options": {"nbits": 4}}, {"channels": 2}),
    }
    for name, (pair, options) in cases.items():
        root = tmp_path / name
        write_pair(root, **pair)
        options = {"classes": str(classes), **options}
        found, target = assembled(one(root, **options))
        whole = one(root, window=None, **options)[0]
        assert np.array_equal(found, whole.image) and found.dtype == whole.image.dtype, name
        assert np.array_equal(target, whole.target), name


NODATA = {
    "value": ({"nodata": 0}, lambda image, empty: np.where(empty, 0, np.maximum(image, 1))),
    "alpha": (
        {"alpha": "yes"},
        lambda image, empty: np.concatenate([image, np.where(empty, 0, 255)[None].astype(np.uint8)]),
    ),
    "mask": ({}, lambda image, empty: image),
    "nan": ({"nodata": np.nan}, lambda image, empty: np.where(empty, np.nan, image).astype(np.float32)),
}


@pytest.mark.parametrize("kind", NODATA)
def test_pixels_without_content_have_no_label_and_are_filled(tmp_path, kind):
    empty = np.zeros((HEIGHT, WIDTH), bool)
    empty[:75, :85] = True  # a whole window, and parts of others
    options, change = NODATA[kind]
    image = np.random.default_rng(0).integers(1, 256, (3, HEIGHT, WIDTH), np.uint8)
    options = {**options, "valid": ~empty if kind == "mask" else None}
    write_pair(tmp_path, image=change(image, empty), mask=np.ones((1, HEIGHT, WIDTH), np.uint8),
               image_options=options)  # fmt: skip
    channels = 3 if kind == "nan" else None
    data = build(tmp_path, channels=channels)
    (split,) = data.splits.values()
    assert "scene_r0_c0" not in [name for name, _ in split.names_and_groups()] and len(split) == 8
    labelled = np.zeros((HEIGHT, WIDTH), bool)
    for index in range(8):
        sample = split[index]
        top, left = (int(part[1:]) for part in sample.name.split("_")[1:])
        place = np.s_[top : top + SIDE, left : left + SIDE]
        labelled[place] |= sample.target != IGNORE
        assert (sample.target[empty[place]] == IGNORE).all()
        mean = 0 if channels is None else np.array(data.facts.normalisation.mean)
        assert np.allclose(sample.image[empty[place]], mean)
        inside = image.transpose(1, 2, 0)[place][~empty[place]]
        assert np.array_equal(sample.image[~empty[place]], inside)
    assert np.array_equal(labelled, ~empty)
    if channels is not None:
        there = image[:, ~empty].astype(np.float64)
        assert np.allclose(data.facts.normalisation.mean, there.mean(1))
        assert np.allclose(data.facts.normalisation.std, there.std(1), rtol=1e-4)


def test_nodata_of_a_mask_is_no_label_and_no_class(tmp_path):
    mask = np.random.default_rng(0).integers(0, 2, (1, HEIGHT, WIDTH)).astype(np.int16)
    mask[:, :20] = -9999
    write_pair(tmp_path, mask=mask, nodata=-9999)
    data = build(tmp_path, classes=None)
    assert data.facts.classes == ("class_0", "class_1")
    _, target = assembled(*data.splits.values())
    assert np.array_equal(target, np.where(mask[0] < 0, IGNORE, mask[0]))


def test_windows_without_a_label_are_left_out_and_counted(tmp_path, capsys):
    mask = np.full((1, HEIGHT, WIDTH), IGNORE, np.uint8)
    mask[0, 100, 100] = 1
    write_pair(tmp_path, mask=mask)
    split = one(tmp_path)
    assert [name for name, _ in split.names_and_groups()] == ["scene_r64_c64"]
    assert "split train: 8 of 9 windows without a labelled pixel left out" in capsys.readouterr().err
    write_pair(tmp_path, mask=np.full((1, HEIGHT, WIDTH), 7, np.uint8))
    with pytest.raises(DataError, match=r"none of the 9 windows .* has a labelled pixel"):
        one(tmp_path, label_map={7: 255})


def test_windows_of_a_raster_stay_together_unless_lists_say_otherwise(tmp_path):
    for name in ("p1_a", "p1_b", "p2_a", "p3_a"):
        write_pair(tmp_path, name, np.ones((3, 50, 70), np.uint8), np.ones((1, 50, 70), np.uint8))

    def rasters(split):
        return {name.rsplit("_r", 1)[0] for name, _ in split.names_and_groups()}

    splits = build(tmp_path, val_fraction=0.5).splits
    assert not rasters(splits["train"]) & rasters(splits["val"])
    assert {group for _, group in splits["train"].names_and_groups()} == rasters(splits["train"])
    assert len(set(folds_of(names_and_groups(splits["train"]), 2))) == 2
    by_group = build(tmp_path, val_fraction=0.5, group=r"(p\d)_").splits
    assert {group for split in by_group.values() for _, group in split.names_and_groups()} == {
        "p1",
        "p2",
        "p3",
    }

    (tmp_path / "train.txt").write_text("p1_a\np2_a_r0_c0\n")
    (tmp_path / "val.txt").write_text("p2_a_r0_c6\nimages/p3_a.tif\n")
    lists = {"train_list": "train.txt", "val_list": "val.txt"}
    splits = build(tmp_path, **lists).splits
    assert [name for name, _ in splits["train"].names_and_groups()] == [
        "p1_a_r0_c0",
        "p1_a_r0_c6",
        "p2_a_r0_c0",
    ]
    assert [name for name, _ in splits["val"].names_and_groups()] == [
        "p2_a_r0_c6",
        "p3_a_r0_c0",
        "p3_a_r0_c6",
    ]
    (tmp_path / "val.txt").write_text("p1_a_r0_c0\n")
    with pytest.raises(DataError, match=r"in both lists, 'p1_a_r0_c0' first"):
        build(tmp_path, **lists)


def test_a_single_raster_needs_lists_of_its_windows(tmp_path, capsys):
    write_pair(tmp_path)
    one(tmp_path)
    assert "name some of them in data.train_list and others in data.val_list" in capsys.readouterr().err


def test_the_channels_of_an_image_may_lie_in_a_file_each(tmp_path):
    image, mask = write_pair(tmp_path, "scene_vv", np.random.default_rng(0).normal(size=(1, HEIGHT, WIDTH)))
    (tmp_path / "masks/scene_vv.tif").rename(tmp_path / "masks/scene.tif")
    other = np.where(np.arange(WIDTH) < 30, -99, image[::-1] + 5)
    write_raster(tmp_path / "images/scene_vh.tif", other, nodata=-99)
    data = build(tmp_path, channels=["_vv", "_vh"])
    found, target = assembled(*data.splits.values())
    there = np.arange(WIDTH) >= 30
    assert np.array_equal(found[:, there], np.stack([image[0], other[0]], 2).astype(np.float32)[:, there])
    assert np.array_equal(target, np.where(there, mask[0], IGNORE))
    assert np.allclose(data.facts.normalisation.mean, [image.mean(), other[0][:, there].mean()])
    write_raster(tmp_path / "images/scene_vh.tif", other[:, 1:])
    with pytest.raises(DataError, match=r"scene_vv.tif and its channel .*scene_vh.tif differ in size"):
        build(tmp_path, channels=["_vv", "_vh"])


def test_max_pixels_is_that_of_a_window(tmp_path):
    write_pair(tmp_path)
    with pytest.raises(DataError, match=r"\(data.max_pixels\).*, or with data=folder set data.window=512"):
        one(tmp_path, window=None, max_pixels=SIDE**2)[0]
    assert len(one(tmp_path, max_pixels=SIDE**2)) == 9
    with pytest.raises(ConfigError, match=r"data.window=64 has 4096 pixels; allowed: 4095 \(data.max_pixels"):
        one(tmp_path, max_pixels=SIDE**2 - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crs": "EPSG:32633"}, r"differ in CRS \(EPSG:32632 and EPSG:32633\)"),
        ({"transform": rasterio.Affine(0.5, 0, 5e5 + 1, 0, -0.5, 5.3e6)}, r"transform \(by up to 2 pixels\)"),
        ({"mask": np.zeros((1, 149, WIDTH), np.uint8)}, r"differ in size \(150x130 and 149x130, height x"),
    ],
)
def test_masks_of_another_place_are_refused(tmp_path, options, message):
    write_pair(tmp_path, **options)
    with pytest.raises(DataError, match=f"images/scene.tif and its mask .*masks/scene.tif .*{message}"):
        one(tmp_path)


def test_masks_without_a_place_are_those_of_their_image(tmp_path):
    _, mask = write_pair(tmp_path, crs=None, transform=None)
    assert np.array_equal(assembled(one(tmp_path))[1], mask[0])


def test_files_that_windows_cannot_be_read_from_are_refused(tmp_path, monkeypatch):
    write_pair(tmp_path, image_options={"compress": "jpeg", "photometric": "ycbcr"}, compress="jpeg")
    with pytest.raises(DataError, match=r"masks/scene.tif is a TIFF of lossy compression"):
        one(tmp_path)
    write_pair(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(raster, "MAX_BLOCK", 1000)
        with pytest.raises(DataError, match=r"scene.tif is compressed in blocks of 32x32 pixels"):
            one(tmp_path)
    (tmp_path / "images/scene.tif").rename(tmp_path / "images/scene.png")
    assert len(one(tmp_path)) == 9  # the content decides
    (tmp_path / "images/scene.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"images/scene.png is no TIFF, and windows are read from TIFFs"):
        one(tmp_path)
    with pytest.raises(ConfigError, match=r"data.window cuts images and their masks, not annotations"):
        one(tmp_path, annotations=".")


def test_without_rasterio_the_extra_is_named(tmp_path, monkeypatch):
    write_pair(tmp_path)
    raster.rasterio_module.cache_clear()
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ConfigError, match=r"rasterio, which is not installed; pip install 'segtrain\[geo\]'"):
        one(tmp_path)


def damage(path):
    """Overwrites a tile in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 500] = b"\x55" * 500
    path.write_bytes(content)


def test_a_damaged_tile_is_that_of_its_windows(tmp_path):
    write_pair(tmp_path)
    damage(tmp_path / "images/scene.tif")
    split, bad = one(tmp_path), 0
    for index in range(len(split)):
        try:
            split[index]
        except DataError as error:
            bad += 1
            assert "images/scene.tif cannot be read (" in str(error) and "\n" not in str(error)
    assert 1 <= bad <= 4
    damage(tmp_path / "masks/scene.tif")
    with pytest.raises(DataError, match=r"masks/scene.tif cannot be read"):
        one(tmp_path)
    for name in ("other", "third"):
        write_pair(tmp_path, name)
    splits = build(
        tmp_path, unread_in=("train", "val"), val_fraction=0.4
    ).splits  # as with loader.on_bad=skip
    assert sum(map(len, splits.values())) == 27


def test_windows_tell_what_they_are_made_of(tmp_path):
    write_pair(tmp_path)
    split, again = one(tmp_path), one(tmp_path)
    sources = [split.source(index) for index in range(9)]
    assert len(set(sources)) == 9 and sources == [again.source(index) for index in range(9)]
    assert sources[0].files == (f"{tmp_path}/images/scene.tif", f"{tmp_path}/masks/scene.tif")
    assert split.source(3) != one(tmp_path, label_map={0: 1, 1: 1, 2: 2}).source(3)
    assert len(set(split.image_hashes())) == 9 and split.image_hashes() == again.image_hashes()
    assert split.name(3).endswith("scene.tif (rows from 64, columns from 0)")
