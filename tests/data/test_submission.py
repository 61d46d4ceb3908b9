"""The archives for the servers of benchmarks: names, values, colours; and that a wrong one is found."""

import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trees
from PIL import Image

from segtrain.data.cityscapes import CLASS_LISTS
from segtrain.data.submission import SUBMISSIONS
from segtrain.data.voc import CLASSES
from segtrain.errors import CheckpointError, ConfigError, DataError

TREE = Path(__file__).parent / "cityscapes" / "tree"


def filled(submission, output, classes):
    """The packed submission of masks that hold every class; {name: decisions}."""
    written = {}
    for number, (name, image) in enumerate(submission.files.items()):
        width, height = Image.open(image).size
        written[name] = np.arange(number, number + width * height).reshape(height, width) % len(classes)
        submission.write(output, name, submission.encoded(written[name], classes))
    return submission.pack(output), written


@pytest.fixture
def voc(tmp_path):
    folder = trees.write_voc(tmp_path, more=("2008_000006", "2008_000011"))
    (folder / "ImageSets/Segmentation/test.txt").write_text("2008_000006\n2008_000011\n")
    return SUBMISSIONS["voc"]({"name": "voc", "root": str(tmp_path), "year": 2012}, "test")


def test_voc_takes_palette_images_in_the_folders_of_the_devkit(voc, tmp_path):
    path, written = filled(voc, tmp_path / "out", CLASSES)
    voc.verify(path)
    assert path.name == "voc2012_test.tar.gz"
    with tarfile.open(path) as archive:
        names = archive.getnames()
        assert names == [
            f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png"
            for name in ("2008_000006", "2008_000011")
        ]
        for name in names:
            mask = Image.open(io.BytesIO(archive.extractfile(name).read()))
            assert mask.mode == "P" and np.array_equal(np.asarray(mask), written[name])
            assert mask.getpalette()[3 * 15 : 3 * 16] == [192, 128, 128]  # person
    before = path.read_bytes()
    assert voc.pack(tmp_path / "out").read_bytes() == before


def test_cityscapes_takes_label_ids(tmp_path):
    submission = SUBMISSIONS["cityscapes"]({"name": "cityscapes", "root": str(TREE)}, "val")
    classes = CLASS_LISTS["19"].names
    path, written = filled(submission, tmp_path, classes)
    submission.verify(path)
    # As the evaluation script writes them down: helpers/labels.py, trainId to id.
    ids = np.array([7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33])
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert names == [
            f"{name}_leftImg8bit.png" for name in ("frankfurt_000000_000294", "lindau_000000_000019")
        ]
        for name in names:
            mask = Image.open(io.BytesIO(archive.read(name)))
            assert mask.mode == "L" and np.array_equal(np.asarray(mask), ids[written[name]])
    again = submission.pack(tmp_path)
    assert again.read_bytes() == path.read_bytes()


def test_class_order_is_that_of_the_run(voc):
    classes = CLASSES[::-1]
    png = voc.encoded(np.array([[0, 20]]), classes)
    assert np.asarray(Image.open(io.BytesIO(png))).tolist() == [[20, 0]]


def test_classes_that_a_benchmark_does_not_have_are_refused(voc):
    voc.check_classes(CLASSES, "run")
    with pytest.raises(
        ConfigError, match=r"run was trained on 2 classes, of which the benchmark has no 'sofas'"
    ):
        voc.check_classes(("background", "sofas"), "run")


@pytest.mark.parametrize("kind", ["cityscapes", "voc"])
def test_what_is_wrong_in_an_archive_is_found(kind, voc, tmp_path):
    if kind == "voc":
        submission, classes = voc, CLASSES
    else:
        submission = SUBMISSIONS[kind]({"name": kind, "root": str(TREE)}, "val")
        classes = CLASS_LISTS["19"].names
    output = tmp_path / "out"
    path, _ = filled(submission, output, classes)
    name = next(iter(submission.files))
    good = (output / name).read_bytes()

    def refused(words):
        with pytest.raises(CheckpointError, match=words):
            submission.verify(submission.pack(output))

    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="was read again"):
        submission.verify(path)
    width, height = Image.open(io.BytesIO(good)).size
    small = np.zeros((height, width - 1), np.uint8)
    (output / name).write_bytes(submission.encoded(small, classes))
    refused(f"{width - 1}, {height}")
    Image.fromarray(np.full((height, width), 77, np.uint8)).save(output / name)
    refused("values .77." if kind == "cityscapes" else "'L'")
    (output / name).write_bytes(good)
    fewer = replace(submission, files={name: submission.files[name]})
    whole = submission.pack(output)
    with pytest.raises(CheckpointError, match="2 files and not the 1 of the split"):
        fewer.verify(whole)


def test_images_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"no folder leftImg8bit/tests"):
        SUBMISSIONS["cityscapes"]({"name": "cityscapes", "root": str(TREE)}, "tests")
    with pytest.raises(ConfigError, match=r"data=shapes has no data.root"):
        SUBMISSIONS["cityscapes"]({"name": "shapes"}, "test")
    folder = trees.write_voc(tmp_path)
    data = {"name": "voc", "root": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"no ImageSets/Segmentation/test.txt; .* archive of their own"):
        SUBMISSIONS["voc"](data, "test")
    (folder / "ImageSets/Segmentation/test.txt").write_text("2008_999999\n")
    with pytest.raises(DataError, match="2008_999999"):
        SUBMISSIONS["voc"](data, "test")
