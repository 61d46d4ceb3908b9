"""Pascal VOC in the layout of its archives."""

import numpy as np
import pytest
import trees
from PIL import Image
from torchvision.datasets import VOCSegmentation
from torchvision.models import segmentation as torchvision_segmentation

from segtrain.data import DATA
from segtrain.data.voc import CLASSES
from segtrain.errors import ConfigError, DataError
from segtrain.sample import voc_palette


def build(root, **options):
    return DATA.build({"name": "voc", "root": str(root), **options})


@pytest.fixture
def root(tmp_path):
    trees.write_voc(tmp_path)
    return tmp_path


def test_names_and_colours_are_the_official_ones():
    weights = torchvision_segmentation.FCN_ResNet50_Weights.DEFAULT
    official = [name.replace("__background__", "background") for name in weights.meta["categories"]]
    assert list(CLASSES) == official
    known = {1: (128, 0, 0), 4: (0, 0, 128), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert all(voc_palette(21)[index] == colour for index, colour in known.items())


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_samples_are_those_of_torchvision(root, below):
    data = build(root / below)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 3, "val": 2}
    for part, split in data.splits.items():
        other = VOCSegmentation(str(root), "2012", part)
        for index in range(len(split)):
            image, mask = other[index]
            assert np.array_equal(split[index].image, np.asarray(image))
            assert np.array_equal(split[index].target, np.asarray(mask))
            assert split[index].name == trees.VOC_2012[part][index]
    assert data.facts.classes == CLASSES and data.facts.things == tuple(range(1, 21))
    assert data.facts.palette == tuple(map(tuple, trees.VOC_PALETTE[:21].tolist()))


def test_objects_are_numbered_and_the_void_border_is_none(root):
    sample = build(root).splits["val"][1]
    assert sample.instances.dtype == np.uint16 and sample.instances.shape == trees.SIZE
    assert np.unique(sample.instances).tolist() == [0, 1, 2]
    assert np.unique(sample.target).tolist() == [0, 5, 255]
    assert (sample.instances[sample.target == 255] == 0).all()
    assert (sample.instances[sample.target == 5] > 0).all()


def test_images_without_object_masks_have_no_objects(root):
    (root / "VOCdevkit/VOC2012/SegmentationObject/2007_000033.png").unlink()
    val = build(root).splits["val"]
    assert val[0].instances is None and val[1].instances is not None


def test_2007_has_a_test_split_where_its_masks_are(tmp_path):
    folder = trees.write_voc(tmp_path, 2007)
    data = build(tmp_path, year=2007)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2, "val": 1, "test": 1}
    assert data.splits["test"][0].name == "000068"
    (folder / "SegmentationClass/000068.png").unlink()
    assert list(build(tmp_path, year=2007).splits) == ["train", "val"]


def test_another_number_of_images_is_said(root, capsys):
    build(root)
    assert "VOC 2012 is not as published: train has 3 of 1464 images, val has 2 of 1449" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("missing", ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation/val.txt"])
def test_a_missing_folder_is_named_with_its_archive(root, missing):
    (root / "VOCdevkit/VOC2012" / missing).rename(root / "elsewhere")
    with pytest.raises(ConfigError, match=rf"has no {missing}, which VOCtrainval_11-May-2012\.tar holds"):
        build(root)


def test_wrong_roots(root, tmp_path):
    with pytest.raises(
        ConfigError, match=r"has no VOCdevkit/VOC2007, which VOCtrainval_06-Nov-2007.*VOCdevkit"
    ):
        build(root, year=2007)
    with pytest.raises(ConfigError, match=r"VOC2012 is VOC 2012 and data\.year is 2007"):
        build(root / "VOCdevkit/VOC2012", year=2007)
    with pytest.raises(ConfigError, match="is '/no/such', which is not a folder"):
        build("/no/such")
    with pytest.raises(ConfigError, match=r"data\.year is 2011; allowed: 2007, 2012"):
        build(root, year=2011)


def write_list(root, part, *names):
    (root / f"VOCdevkit/VOC2012/ImageSets/Segmentation/{part}.txt").write_text("\n".join(names))


def test_lists_that_cannot_be_right(root):
    write_list(root, "val", "2007_000033", "../../secret")
    with pytest.raises(
        DataError, match="1 name of ImageSets/Segmentation without image in JPEGImages, secret"
    ):
        build(root)
    write_list(root, "val", "2007_000033", "2007_000033")
    with pytest.raises(DataError, match=r"val\.txt has 2007_000033 twice"):
        build(root)
    write_list(root, "val", "2007_000032")
    with pytest.raises(DataError, match=r"2007_000032\.jpg is in the lists of train and of val"):
        build(root)
    write_list(root, "val")
    with pytest.raises(DataError, match=r"val\.txt names no image"):
        build(root)


@pytest.mark.parametrize(
    "saved_anew", [lambda image: image, lambda image: image.quantize(8)], ids=["RGB", "palette"]
)
def test_masks_saved_anew_are_read_by_their_colours(root, saved_anew):
    before = [sample.target for sample in build(root).splits["train"]]
    paths = sorted((root / "VOCdevkit/VOC2012/SegmentationClass").glob("*.png"))
    for path in paths:
        saved_anew(Image.open(path).convert("RGB")).save(path)
    assert not np.array_equal(np.array(Image.open(paths[0])), before[0])
    after = [sample.target for sample in build(root).splits["train"]]
    assert all(map(np.array_equal, before, after)) and set(np.unique(after)) == {0, 1, 2, 3, 255}


def test_masks_of_other_colours_are_refused(root):
    path = root / "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png"
    Image.new("RGB", trees.SIZE[::-1], (1, 2, 3)).save(path)
    with pytest.raises(DataError, match=r"colours that no class has: \(1 2 3\) .*unpack the original file"):
        build(root).splits["val"].target(0)


def test_a_file_that_leads_elsewhere_is_refused(root, tmp_path_factory):
    path = root / "VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg"
    elsewhere = path.rename(tmp_path_factory.mktemp("other") / "a.jpg")
    path.symlink_to(elsewhere)
    with pytest.raises(DataError, match="leads to"):
        build(root)
