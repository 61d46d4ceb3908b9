"""`segtrain data prepare`, from archives in the official layouts to data sets that can be trained on."""

import errno
import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import trees
from PIL import Image

from segtrain.data.files import archives as unpacking

HERE = Path(__file__).parent
TRAINVAL = "VOCtrainval_11-May-2012.tar"


@pytest.fixture
def downloads(tmp_path):
    (tmp_path / "downloads").mkdir()
    return tmp_path / "downloads"


@pytest.fixture
def voc(tmp_path, downloads):
    trees.write_voc(tmp_path / "made")
    trees.tar(downloads / TRAINVAL, tmp_path / "made")
    return downloads


def sub_tree(tmp_path, source: Path, *parts: str) -> Path:
    """A folder with some parts of a tree, and the files that archives of Cityscapes hold beside them."""
    folder = tmp_path / f"part-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    for part in parts:
        shutil.copytree(source / part, folder / part)
    (folder / "README").write_text(f"of {parts}")
    return folder


def test_voc_of_both_years(segtrain, tmp_path, downloads):
    parts = dict(trees.VOC_2007)
    trees.write_voc(tmp_path / "test", 2007, {"test": parts.pop("test")})
    trees.write_voc(tmp_path / "trainval", 2007, parts)
    trees.tar(downloads / "VOCtrainval_06-Nov-2007.tar", tmp_path / "trainval")
    words = ("data", "prepare", "data=voc", "data.year=2007", "data.root=voc", "archives=downloads")
    result = segtrain(*words)
    assert result.code == 0, result.err
    assert "VOCtest_06-Nov-2007.tar: left out, it is not in downloads" in result.out
    assert result.out.splitlines()[-1] == "voc: train 2 images, val 1 image"
    trees.tar(downloads / "VOCtest_06-Nov-2007.tar", tmp_path / "test")
    assert segtrain(*words).out.splitlines()[-1] == "voc: train 2 images, val 1 image, test 1 image"


def test_a_dry_run_writes_nothing(segtrain, tmp_path, voc):
    before = sorted(tmp_path.rglob("*"))
    result = segtrain("data", "prepare", "data=voc", "data.root=new", "archives=downloads", "dry_run=true")
    assert result.code == 0 and sorted(tmp_path.rglob("*")) == before
    assert result.out.startswith(f"unpack downloads/{TRAINVAL} (") and result.out.endswith(" into new\n")


def test_archives_lie_in_the_root_by_default(segtrain, voc):
    result = segtrain("data", "prepare", "data=voc", "data.root=downloads")
    assert result.code == 0 and (voc / "VOCdevkit/VOC2012/JPEGImages").is_dir()


def test_ade20k(segtrain, tmp_path, downloads):
    trees.write_ade20k(tmp_path / "made")
    trees.zipped(downloads / "ADEChallengeData2016.zip", tmp_path / "made")
    for root in ("ade", "other/ADEChallengeData2016"):
        result = segtrain("data", "prepare", "data=ade20k", f"data.root={root}", "archives=downloads")
        assert result.code == 0, result.err
        assert result.out.splitlines()[-1] == "ade20k: train 3 images, val 2 images"
    assert (tmp_path / "other/ADEChallengeData2016/images/training").is_dir()


def test_cityscapes(segtrain, tmp_path, downloads):
    tree = HERE / "cityscapes/tree"
    images = [f"leftImg8bit/{part}" for part in ("train", "val", "test")]
    trees.zipped(downloads / "leftImg8bit_trainvaltest.zip", sub_tree(tmp_path, tree, *images))
    trees.zipped(downloads / "gtFine_trainvaltest.zip", sub_tree(tmp_path, tree, "gtFine"))
    words = ("data", "prepare", "data=cityscapes", "data.root=city", "archives=downloads")
    result = segtrain(*words)
    assert result.code == 0, result.err
    assert "gtCoarse.zip: left out" in result.out and "train 3 images, val 2 images" in result.out
    segtrain(*words, "data.train=coarse_extra").refused(
        "gtCoarse.zip does not exist", "cityscapes-dataset.com"
    )
    trees.zipped(downloads / "gtCoarse.zip", sub_tree(tmp_path, tree, "gtCoarse"))
    extra = sub_tree(tmp_path, tree, "leftImg8bit/train_extra")
    trees.zipped(downloads / "leftImg8bit_trainextra.zip", extra)
    result = segtrain(*words, "data.train=coarse_extra")
    assert result.code == 0 and "cityscapes: val 2 images" in result.out.replace("train 3 images, ", "")
    copied = {str(path.relative_to(tmp_path / "city")) for path in (tmp_path / "city").rglob("*.png")}
    assert copied == {str(path.relative_to(tree)) for path in tree.rglob("*.png")}


def test_coco(segtrain, tmp_path, downloads):
    tree = HERE / "coco/tree"
    for part in ("train2017", "val2017"):
        trees.zipped(downloads / f"{part}.zip", sub_tree(tmp_path, tree, part))
    annotations = sub_tree(tmp_path, tree, "annotations")
    inner = sub_tree(tmp_path, tree)
    (inner / "annotations").mkdir()
    for part in ("train2017", "val2017"):
        masks = annotations / "annotations" / f"panoptic_{part}"
        trees.zipped(inner / f"annotations/panoptic_{part}.zip", masks, f"panoptic_{part}/")
        (annotations / f"annotations/panoptic_{part}.json").rename(
            inner / f"annotations/panoptic_{part}.json"
        )
        shutil.rmtree(masks)
    trees.zipped(downloads / "annotations_trainval2017.zip", annotations)
    words = ("data", "prepare", "data=coco", "data.root=coco", "archives=downloads")
    result = segtrain(*words)
    assert result.code == 0, result.err
    assert "stuffthingmaps_trainval2017.zip: left out" in result.out
    segtrain(*words, "data.labels=stuff").refused(
        "stuffthingmaps_trainval2017.zip does not exist", "cocostuff"
    )
    stuff = sub_tree(tmp_path, tree / "stuffthingmaps", "train2017", "val2017")
    trees.zipped(downloads / "stuffthingmaps_trainval2017.zip", stuff)
    trees.zipped(downloads / "panoptic_annotations_trainval2017.zip", inner)
    for labels in ("stuff", "panoptic"):
        result = segtrain(*words, f"data.labels={labels}")
        assert result.code == 0, result.err
    ours = {str(path.relative_to(tmp_path / "coco")) for path in (tmp_path / "coco").rglob("*.*")}
    theirs = {str(path.relative_to(tree)) for path in tree.rglob("*.*")}
    assert ours >= theirs
    assert np.array_equal(
        *(
            np.asarray(Image.open(one / "stuffthingmaps/val2017/000000000139.png"))
            for one in (tree, tmp_path / "coco")
        )
    )


def test_what_cannot_be_prepared(segtrain, tmp_path, downloads):
    segtrain("data", "prepare").refused(
        "data=shapes has no official archives", "ade20k, cityscapes, coco, voc"
    )
    segtrain("data", "prepare", "data=voc").refused("data.root is missing")
    segtrain("data", "prepare", "data=voc", "data.root=x", "archives=no").refused(
        "archives is 'no', which is not"
    )
    result = segtrain("data", "prepare", "data=voc", "data.root=x", "archives=downloads")
    result.refused(
        f"downloads/{TRAINVAL} does not exist", "VOCdevkit/VOC2012/SegmentationClass", "host.robots.ox"
    )
    assert not (tmp_path / "x").exists()


def test_a_hostile_archive_is_refused_in_one_line(segtrain, tmp_path, downloads):
    with tarfile.open(downloads / TRAINVAL, "w") as archive:
        archive.addfile(tarfile.TarInfo("VOCdevkit/ok"), io.BytesIO(b""))
        archive.addfile(tarfile.TarInfo("../../evil\nname"), io.BytesIO(b""))
    result = segtrain("data", "prepare", "data=voc", "data.root=new", "archives=downloads")
    result.refused("is a path with '..'", "evil\\nname", code=3)
    assert not list((tmp_path / "new").iterdir())


def test_a_full_disk(segtrain, voc, tmp_path, monkeypatch):
    real = open

    def full(path, mode="r", *rest, **options):
        if "w" in mode and str(path).endswith("2008_000008.png"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, mode, *rest, **options)

    words = ("data", "prepare", "data=voc", "data.root=new", "archives=downloads")
    with monkeypatch.context() as patch:
        patch.setattr(unpacking, "open", full, raising=False)
        segtrain(*words).refused("the disk is full", "free some space", code=4)
    assert not (tmp_path / "new/VOCdevkit").exists()
    assert segtrain(*words).out.splitlines()[-1] == "voc: train 3 images, val 2 images"


def test_too_much_and_changed_files(segtrain, voc, tmp_path):
    words = ("data", "prepare", "data=voc", "data.root=new", "archives=downloads")
    segtrain(*words, "max_gb=0.000001").refused("unpacks to more than 1.0 kB (max_gb)", code=3)
    assert segtrain(*words).code == 0
    path = tmp_path / "new/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    path.write_text("2007_000033\n")
    result = segtrain(*words)
    assert result.code == 0 and "val.txt has another size than in VOCtrainval" in result.err
    assert path.read_text() == "2007_000033\n" and "val 1 image" in result.out


def test_the_help_names_archives(segtrain):
    shown = segtrain("data", "prepare", "--help").out
    assert "benchmark.tgz" in shown and "archives=null" in shown and "dry_run=false" in shown
    assert "segtrain data prepare data=voc" in segtrain("--help").out
