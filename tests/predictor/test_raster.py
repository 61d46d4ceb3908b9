"""Predictions of rasters window by window: the same as of the whole image, in the same place."""

import os
import resource
import signal

import numpy as np
import pytest
import torch

from segtrain.data.files.raster import raster_image
from segtrain.errors import CheckpointError, DataError
from segtrain.model.network import Network
from segtrain.predictor import raster
from segtrain.predictor.mask import Mask
from segtrain.predictor.predictor import predictor
from segtrain.sample import Facts, Normalisation, Output, Window
from segtrain.settings import PredictorSettings
from segtrain.task import TASK
from segtrain.tta import TTA

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
CLASSES, TILE = 5, 64
FACTS = Facts(
    tuple("abcde"), tuple((40 * n, 0, 9) for n in range(CLASSES)),
    normalisation=Normalisation((0.5,) * 3, (0.25,) * 3),
)  # fmt: skip


class Wide(Network):
    """Its answer for a pixel depends on pixels up to 2 away, and on zeros beyond the border of a tile."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(3, CLASSES, 5, padding=2)

    def forward(self, x):
        return Output(self.layer(x), tuple(x.shape[-2:]))


class Inner(Wide):
    """Without padding."""

    margin, tile_sides = 2, (12, 4)

    def forward(self, x):
        inner = x.shape[-1] - 4
        return Output(self.layer(x)[..., 2:-2, 2:-2], (inner, inner), window=Window(2, 2, inner, inner))


def mask_by(network=Wide, views=None, **settings):
    task = TASK.build({"name": "semantic"})
    chosen = PredictorSettings(**{"tile": TILE, **settings})
    run = predictor(network(), FACTS.normalisation, task.activate, chosen, TTA.build_each(views or {}))
    return Mask(run, task.decide, FACTS, torch.device("cpu"))


def write_image(path, height=140, width=200, **options):
    """An image of noise; with `nodata`, its upper left corner has no content. Returns its pixels."""
    image = np.random.default_rng(0).integers(1, 256, (3, height, width), np.uint8)
    image[:, :50, :90] = 0
    place = {"crs": "EPSG:25832", "transform": rasterio.Affine(0.2, 0.01, 4e5, 0.02, -0.2, 5.5e6)}
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", **place, **options}
    with rasterio.open(
        path, "w", driver="GTiff", count=3, dtype="uint8", height=height, width=width, **layout
    ) as file:
        file.write(image)
    return image.transpose(1, 2, 0)


def predicted(mask, folder, mean=None):
    image = raster_image(str(folder / "a.tif"), None)
    raster.predict_raster(mask, image, mean, TILE, folder / "out" / "a.tif")
    with rasterio.open(folder / "out" / "a.tif") as file:
        return file.read(1)


@pytest.mark.parametrize("parts", ["all columns", "columns by 64"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"overlap": 0.1},
        {"views": {"flip": {}}},
        {"network": Inner},
        {"crf": "deeplab", "crf_solver": "torch", "crf_window": 3, "overlap": 0.1},
    ],
    ids=str,
)
def test_a_raster_is_predicted_as_the_whole_image_is(tmp_path, monkeypatch, settings, parts):
    image = write_image(tmp_path / "a.tif")
    if parts != "all columns":
        monkeypatch.setattr(raster, "BAND_BYTES", 0)
        monkeypatch.setattr(raster, "BLOCK", 32)
    mask = mask_by(**settings)
    expected = mask(image)
    assert len(np.unique(expected)) == CLASSES
    assert np.array_equal(predicted(mask, tmp_path), expected)


def test_a_prediction_lies_where_its_raster_lies(tmp_path):
    image = write_image(tmp_path / "a.tif", nodata=0)
    mean = (0.2, 0.4, 0.6)
    found = predicted(mask_by(), tmp_path, mean)
    empty = (image == 0).all(axis=2)
    image[empty] = np.round(255 * np.array(mean))
    assert np.array_equal(found, np.where(empty, 255, mask_by()(image)))
    with rasterio.open(tmp_path / "out/a.tif") as file, rasterio.open(tmp_path / "a.tif") as source:
        assert file.crs == source.crs and file.transform == source.transform
        assert (file.nodata, file.dtypes, file.count) == (255, ("uint8",), 1)
        assert file.profile["tiled"] and file.profile["compress"] == "deflate"
        assert [file.colormap(1)[n][:3] for n in range(CLASSES)] == list(FACTS.palette)
        assert np.array_equal(file.dataset_mask() == 0, empty)


def test_rasters_smaller_than_a_tile_and_without_a_place(tmp_path):
    image = write_image(tmp_path / "a.tif", height=20, width=50, crs=None, transform=None, nodata=None)
    assert np.array_equal(predicted(mask_by(), tmp_path), mask_by()(image))


def test_of_a_damaged_raster_nothing_is_written(tmp_path):
    write_image(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 500] = b"\x55" * 500
    for damaged in (bytes(content), bytes(content[: len(content) // 2])):
        (tmp_path / "a.tif").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a.tif cannot be read \(.*\); replace or remove it") as error:
            predicted(mask_by(), tmp_path)
        assert "\n" not in str(error.value)
        assert list((tmp_path / "out").glob("*")) + list((tmp_path / "out").glob(".*")) == []


@pytest.mark.parametrize("limit", [200, 3000, 9000])
def test_of_what_does_not_fit_on_the_disk_nothing_is_left(tmp_path, limit):
    write_image(tmp_path / "a.tif", nodata=0)
    mask, image = mask_by(), raster_image(str(tmp_path / "a.tif"), None)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(
            CheckpointError, match=r"cannot write .*out/b.tif: .*check the folder and its disk"
        ):
            raster.predict_raster(mask, image, None, TILE, tmp_path / "out" / "b.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path / "out") == []
