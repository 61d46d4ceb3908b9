"""Georeferenced predictions, held against GDAL."""

import warnings

import numpy as np
import pytest
import tifffile

from segtrain.predictor.geo import georeference, write_georeferenced

SIZE = (20, 30)


def write_place(path, crs="EPSG:32633", turned=False, **options):
    rasterio = pytest.importorskip("rasterio")
    place = rasterio.transform.from_origin(500_000.5, 5_400_000.25, 0.5, 0.25)
    place = place @ rasterio.Affine.rotation(30) if turned else place
    with rasterio.open(
        path, "w", driver="GTiff", height=SIZE[0], width=SIZE[1], count=3, dtype="uint16",
        crs=crs, transform=place, nodata=0, **options,
    ) as file:  # fmt: skip
        file.write(np.ones((3, *SIZE), np.uint16))
    return place


@pytest.mark.parametrize(
    "crs", ["EPSG:32633", "EPSG:4326", "+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80 +units=m"]
)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16, "BIGTIFF": "YES"}]
)
def test_a_prediction_lies_where_its_image_lies(tmp_path, crs, turned, options):
    rasterio = pytest.importorskip("rasterio")
    place = write_place(tmp_path / "a.tif", crs, turned, **options)
    values = np.random.default_rng(0).integers(0, 4, SIZE).astype(np.uint8)
    write_georeferenced(tmp_path / "out", values, str(tmp_path / "a.tif"), 255)
    with rasterio.open(tmp_path / "out.tif") as file, rasterio.open(tmp_path / "a.tif") as image:
        assert file.crs == image.crs and file.transform.almost_equals(place)
        assert file.nodata == 255 and file.dtypes == ("uint8",)
        assert np.array_equal(file.read(1), values)


def test_images_without_a_place_have_no_such_prediction(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((*SIZE, 3), np.uint8), photometric="rgb")
    (tmp_path / "b.png").write_bytes(b"\x89PNG")
    for name in ("a.tif", "b.png"):
        assert georeference(str(tmp_path / name)) is None
        assert not write_georeferenced(tmp_path / "out", np.zeros(SIZE, np.uint8), str(tmp_path / name), 255)
    assert not (tmp_path / "out.tif").exists()


def test_nothing_is_warned_of(tmp_path):
    write_place(tmp_path / "a.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_georeferenced(tmp_path / "out", np.zeros(SIZE, np.uint8), str(tmp_path / "a.tif"), 255)
    assert (tmp_path / "out.tif").stat().st_size < 2000
