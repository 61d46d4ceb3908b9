"""Training, scoring and prediction of large GeoTIFFs by windows."""

import multiprocessing
import os
import subprocess

import numpy as np
import pytest
from conftest import SEGTRAIN

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
SHORT = ("device=cpu", "threads=1", "model=unet", "model.widths=[4,8]", "augmentation=none")
SHORT += ("loader.batch_size=2", "loader.workers=0", "evaluate.workers=0")
DATA = ("data=folder", "data.root=.", "data.classes=[land,water]")
COLOURS = np.array([[60, 120, 40], [20, 40, 130]], np.uint8)


def write_scene(root, name, height, width, **options):
    """A raster with a lake, a corner without content and a stripe without labels. Returns its mask."""
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.3e6)}
    place |= {"height": height, "width": width, "tiled": True, "compress": "deflate", **options}
    rows, columns = np.ogrid[:height, :width]
    mask = ((rows % 90 - 45) ** 2 + (columns % 100 - 50) ** 2 < 1200).astype(np.uint8)
    image = COLOURS[mask] + (rows * columns % 19)[..., None].astype(np.uint8)
    image[rows + columns < 40] = 0
    mask[:, 60:70] = 255
    for kind, values in (("images", image.transpose(2, 0, 1)), ("masks", mask[None])):
        (root / kind).mkdir(exist_ok=True)
        nodata = 0 if kind == "images" else None
        with rasterio.open(
            root / kind / f"{name}.tif", "w", driver="GTiff", count=len(values), dtype="uint8", nodata=nodata,
            **place,
        ) as file:  # fmt: skip
            file.write(values)
    return mask


def test_a_raster_is_learned_and_predicted_by_windows(segtrain, tmp_path):
    masks = [write_scene(tmp_path, name, 300, 260) for name in ("a", "b")]
    (tmp_path / "train.txt").write_text("a.tif\n")
    (tmp_path / "val.txt").write_text("b.tif\n")
    lists = ("data.train_list=train.txt", "data.val_list=val.txt", "data.window=128")
    trained = segtrain(
        "train", *SHORT, *DATA, *lists, "trainer.steps=30", "optimizer.lr=0.02", "data.max_pixels=20000",
        "trainer.evaluate_every=null", "name=run",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert "folder: 9 train, 9 val; 2 classes" in trained.out
    scored = segtrain("evaluate", "run=outputs/run", "device=cpu", "evaluate.workers=0")
    corner = sum(range(1, 41))
    assert f"9 images of split val, {300 * 250 - corner} labelled pixels" in scored.out  # each of them once

    predict = ("predict", "run=outputs/run", "input=images", "device=cpu", "predictor.tile=128")
    predicted = segtrain(*predict, "output=out")
    assert predicted.code == 0, predicted.err
    assert predicted.out.strip() == "written   2 masks to out (geotiff/)"
    names = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "out").rglob("*.*"))
    assert names == ["out/geotiff/a.tif", "out/geotiff/b.tif"]
    with rasterio.open("out/geotiff/b.tif") as file, rasterio.open("images/b.tif") as image:
        assert file.crs == image.crs and file.transform == image.transform and file.nodata == 255
        found, known = file.read(1), masks[1] != 255
        assert np.array_equal(found == 255, image.dataset_mask() == 0)
    assert (found == masks[1])[known & (found != 255)].mean() > 0.95

    content = (tmp_path / "images/b.tif").read_bytes()
    (tmp_path / "images/b.tif").write_bytes(content[: len(content) // 2])
    (tmp_path / "images/a.tif").unlink()
    cut = segtrain(*predict, "output=cut")
    cut.refused("the image could not be used: images/b.tif cannot be read", "replace or remove it", code=3)
    assert not list((tmp_path / "cut").rglob("*.*"))


def test_runs_on_small_images_predict_large_rasters_by_windows(segtrain, tmp_path):
    write_scene(tmp_path, "a", 100, 110)
    write_scene(tmp_path, "b", 90, 110)
    trained = segtrain("train", *SHORT, *DATA, "trainer.steps=2", "name=run")
    assert trained.code == 0, trained.err
    predict = ("predict", "run=outputs/run", "input=images", "device=cpu", "predictor.tile=64")
    whole = segtrain(*predict, "output=whole")
    mixed = segtrain(*predict, "output=mixed", "max_pixels=10000", "probabilities=true")
    assert whole.code == mixed.code == 0
    assert "2 masks to mixed (classes/, colours/, overlay/, probabilities/, geotiff/)" in mixed.out
    assert "no probabilities of 1 image predicted window by window" in mixed.err and not whole.err
    assert [path.name for path in (tmp_path / "mixed/classes").iterdir()] == ["b.png"]
    with rasterio.open("whole/geotiff/a.tif") as one, rasterio.open("mixed/geotiff/a.tif") as other:
        there = other.dataset_mask() > 0
        assert np.array_equal(one.read(1)[there], other.read(1)[there]) and not there.all()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_raster(tmp_path):
    """Reading the larger one whole would take 216 MB, its probabilities 580 MB."""
    used = {}
    # Of one width: memory grows with the width of a strip, up to the bound of `raster.BAND_BYTES`.
    for name, size in (("small", (2000, 12000)), ("large", (6000, 12000))):
        root = tmp_path / name
        root.mkdir()
        # In a process of its own: what this one takes would count as that of the processes that it starts.
        writer = multiprocessing.get_context("fork").Process(target=write_scene, args=(root, "a", *size))
        writer.start()
        writer.join(timeout=120)
        assert writer.exitcode == 0
        (root / "val.txt").write_text("a_r1024_c5120\n")
        window = ("data.window=512", "data.train_list=train.txt", "data.val_list=val.txt")
        (root / "train.txt").write_text("a_r0_c512\na_r0_c1024\n")
        train = (
            "train",
            *SHORT,
            *DATA,
            *window,
            "trainer.steps=2",
            "trainer.evaluate_every=null",
            "name=run",
        )
        predict = ("predict", "run=outputs/run", "input=images", "output=out", "device=cpu", "threads=1")
        for words in (train, (*predict, "predictor.overlap=0")):
            process = subprocess.Popen([SEGTRAIN, *words], cwd=root, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0
            used[name, words[0]] = usage.ru_maxrss // 1024
    assert used["large", "train"] - used["small", "train"] < 60, used
    assert used["large", "predict"] - used["small", "predict"] < 100, used
