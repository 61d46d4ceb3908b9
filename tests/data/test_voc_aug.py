"""Pascal VOC with SBD: from the archives to the samples."""

import numpy as np
import pytest
import trees
from torchvision.datasets import SBDataset

from segtrain.commands.data_prepare import data_prepare
from segtrain.data import DATA
from segtrain.data.voc_aug import segmentation
from segtrain.errors import ConfigError, DataError
from segtrain.run.stop import Stop

OF_SBD = {"train": ("2008_000002", "2007_000033", "2007_000032"), "val": ("2008_000003", "2008_000008")}
"""One is a validation image of VOC, two are training images of VOC."""


def sbd_mask(number: int) -> np.ndarray:
    mask = np.zeros(trees.SIZE, np.uint8)
    mask[2:8, 3:9] = 16 + number
    return mask


def prepare(root, archives, **options):
    config = {
        "data": {"name": "voc_aug", "root": str(root)},
        "archives": str(archives),
        "dry_run": False,
        "max_gb": 1.0,
        **options,
    }
    return data_prepare(config, Stop())


@pytest.fixture
def archives(tmp_path):
    """The two official archives."""
    more = ("2008_000002", "2008_000003")
    trees.write_voc(tmp_path / "voc", more=more)
    masks = {part: {name: sbd_mask(i) for i, name in enumerate(names)} for part, names in OF_SBD.items()}
    trees.write_sbd(tmp_path / "sbd", masks["train"], masks["val"])
    folder = tmp_path / "archives"
    folder.mkdir()
    trees.tar(folder / "VOCtrainval_11-May-2012.tar", tmp_path / "voc")
    trees.tar(folder / "benchmark.tgz", tmp_path / "sbd", "w:gz")
    return folder


def test_the_lists_and_masks_that_the_preparation_makes(archives, tmp_path, capsys):
    root = tmp_path / "root"
    prepare(root, archives)
    shown = capsys.readouterr()
    assert "2 masks of SBD converted; ImageSets/Segmentation/train_aug.txt: 5 images" in shown.out
    assert "voc_aug: train 5 images, val 2 images" in shown.out
    assert "train has 5 of 10582 images" in shown.err
    data = DATA.build({"name": "voc_aug", "root": str(root)})
    train = data.splits["train"]
    names = [pair.name for pair in train.pairs]
    assert names == ["2007_000032", "2007_000039", "2008_000002", "2008_000003", "2008_000008"]
    assert [pair.name for pair in data.splits["val"].pairs] == list(trees.VOC_2012["val"])
    samples = {sample.name: sample for sample in (train[index] for index in range(len(train)))}
    # VOC's own mask with its void border where there is one, else the mask of SBD.
    assert np.array_equal(samples["2007_000032"].target, trees.voc_mask(0)[0])
    assert np.array_equal(samples["2008_000002"].target, sbd_mask(0))
    assert np.array_equal(samples["2008_000003"].target, sbd_mask(0))
    assert samples["2008_000002"].instances is None and samples["2007_000039"].instances is not None
    sbd = SBDataset(str(root / "benchmark_RELEASE/dataset"), "train", "segmentation")
    assert not (root / "benchmark_RELEASE/dataset/img").exists()  # VOC has the same images
    assert np.array_equal(np.asarray(sbd._get_target(sbd.masks[0])), sbd_mask(0))


def test_once_more_changes_nothing_and_needs_no_archive(archives, tmp_path, capsys):
    root = tmp_path / "root"
    prepare(root, archives)
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("*.*") if path.name != "train_aug.txt"}
    lines = prepare(root, archives)
    assert lines[0].endswith("19 were there already") and "0 masks of SBD converted" in lines[2]
    for path in archives.iterdir():
        path.unlink()
    prepare(root, archives)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert not list(root.rglob("*.unpacking"))


@pytest.mark.parametrize("below", ["VOCdevkit", "VOCdevkit/VOC2012"])
def test_the_root_may_be_a_folder_below(archives, tmp_path, below):
    root = tmp_path / "root" / below
    prepare(root, archives)
    assert (tmp_path / "root/VOCdevkit/VOC2012/SegmentationClassAug/2008_000003.png").is_file()


def test_masks_made_elsewhere_are_taken_for_all_images(archives, tmp_path):
    folder = trees.write_voc(tmp_path / "root")
    (folder / "ImageSets/Segmentation/train_aug.txt").write_text(
        "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png\n"
    )
    trees.write_palette(folder / "SegmentationClassAug/2007_000032.png", sbd_mask(3))
    train = DATA.build({"name": "voc_aug", "root": str(tmp_path / "root")}).splits["train"]
    assert len(train) == 1 and np.array_equal(train[0].target, sbd_mask(3))


def test_a_validation_image_in_the_training_list_is_an_error(archives, tmp_path):
    root = tmp_path / "root"
    prepare(root, archives)
    with open(root / "VOCdevkit/VOC2012/ImageSets/Segmentation/train_aug.txt", "a") as file:
        file.write("2007_000033\n")
    with pytest.raises(DataError, match=r"2007_000033\.jpg is in the lists of train and of val"):
        DATA.build({"name": "voc_aug", "root": str(root)})


def test_without_preparation_the_command_is_named(tmp_path):
    trees.write_voc(tmp_path)
    with pytest.raises(ConfigError, match=r"train_aug\.txt; make it from benchmark\.tgz .* data=voc_aug"):
        DATA.build({"name": "voc_aug", "root": str(tmp_path)})


def test_a_missing_archive_is_named_before_anything_is_unpacked(archives, tmp_path):
    (archives / "benchmark.tgz").unlink()
    with pytest.raises(ConfigError, match=r"benchmark\.tgz does not exist.*www2\.eecs\.berkeley\.edu"):
        prepare(tmp_path / "root", archives)
    assert not (tmp_path / "root").exists()


def test_masks_that_cannot_be_right(tmp_path):
    from scipy.io import savemat

    path = tmp_path / "a.mat"
    for content in ({"other": 1}, {"GTcls": 3}, {"GTcls": {"Segmentation": np.full((2, 3), 21)}}):
        savemat(path, content)
        with pytest.raises(DataError, match=r"a\.mat holds"):
            segmentation(path)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(DataError, match=r"a\.mat holds no GTcls\.Segmentation"):
        segmentation(path)
    with pytest.raises(DataError, match=r"b\.mat is missing"):
        segmentation(tmp_path / "b.mat")
