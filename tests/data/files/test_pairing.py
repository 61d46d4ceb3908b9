"""Images and masks in one folder, suffixes of both, and the suffixes that an error proposes."""

import re

import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATA
from segtrain.data.files.pairing import Suffixes, suffixes_seen
from segtrain.errors import ConfigError, DataError


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 4), value).save(path)


def build(**options):
    return DATA.build({"name": "folder", "classes": ["a", "b"], **options})


def names(data):
    return sorted(sample.name for split in data.splits.values() for sample in split)


LAYOUTS = {
    "suffixes of images alone": ("images/{}_0000.png", "masks/{}.png", {"image_suffix": "_0000"}),
    "one folder": ("{}.png", "{}_mask.png", {"mask_suffix": "_mask"}),
    "one folder, two kinds": ("{}.jpg", "{}.png", {"image_suffix": ".jpg", "mask_suffix": ".png"}),
    "splits": ("train/{}.jpg", "train/{}_mask.png", {"mask_suffix": "_mask"}),
    "folders of splits": (
        "train/images/x/{}.png",
        "train/masks/x/{}_seg.png",
        {"mask_suffix": "_seg"},
    ),
    "two folders": (
        "images/{}_sat.jpg",
        "masks/{}_mask.png",
        {"image_suffix": "_sat", "mask_suffix": "_mask"},
    ),
    "folders below": (
        "images/x/{}_leftImg8bit.png",
        "masks/x/{}_gtFine_labelIds.png",
        {"image_suffix": "_leftImg8bit", "mask_suffix": "_gtFine_labelIds"},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_suffixes_pair_what_they_name_and_the_error_proposes_them(tmp_path, layout):
    image, mask, suffixes = LAYOUTS[layout]
    for number in range(0, 60, 10):
        save(tmp_path / image.format(f"im{number}"), number)
        save(tmp_path / mask.format(f"im{number}"), number > 20)
    with pytest.raises(DataError) as caught:
        build(root=str(tmp_path))
    typed = dict(re.findall(r"data\.(\w+_suffix)=(\S+)", str(caught.value)))
    assert typed == suffixes
    if layout == "splits":
        for number in range(2):
            save(tmp_path / f"valid/b{number}.jpg")
            save(tmp_path / f"valid/b{number}_mask.png")
    data = build(root=str(tmp_path), **typed)
    assert len([name for name in names(data) if "im" in name]) == 6
    for sample in (sample for split in data.splits.values() for sample in split):
        assert sample.target.max() == (sample.image.max() > 22), sample.name  # JPEG moves values a little


def test_folders_of_splits_hold_images_and_masks(tmp_path):
    for split in ("train", "valid", "test"):
        save(tmp_path / split / "images/a.png")
        if split != "test":
            save(tmp_path / split / "labels/a.png")
    data = build(root=str(tmp_path))
    found = {split: [sample.name for sample in data.splits[split]] for split in data.splits}
    assert found == {"train": ["train/a"], "val": ["valid/a"]}


def test_folders_of_kinds_and_splits_in_capitals(tmp_path):
    for split in ("Train", "VAL"):
        save(tmp_path / split / "Images/a.png")
        save(tmp_path / split / "Masks/a.PNG")
    data = build(root=str(tmp_path))
    assert {split: [sample.name for sample in found] for split, found in data.splits.items()} == {
        "train": ["Train/a"],
        "val": ["VAL/a"],
    }


def test_errors_show_what_is_there_instead(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / "img_dir" / split / "a.png")
        save(tmp_path / "ann_dir" / split / "a.png")
    with pytest.raises(
        DataError, match=r"or data\.images and data\.masks to two folders; .* ann_dir, img_dir"
    ):
        build(root=str(tmp_path))
    with pytest.raises(ConfigError, match=r"data\.masks is .*; .* holds the folders ann_dir, img_dir"):
        build(root=str(tmp_path), images="img_dir")
    assert len(build(root=str(tmp_path), images="img_dir", masks="ann_dir").splits["val"]) == 1
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.6\n")
    with pytest.raises(
        DataError, match=r"labels \(0 found among 1 \.txt file; polygons of YOLO are not read"
    ):
        build(root=str(tmp_path), images="img_dir", masks="labels")


def test_lists_with_a_column_of_masks_are_recognised(tmp_path):
    for name in "ab":
        save(tmp_path / f"images/{name}.png")
        save(tmp_path / f"masks/{name}.png")
    for split, name, separator in (("train", "a", " "), ("val", "b", "|")):
        (tmp_path / f"{split}.txt").write_text(f"images/{name}.png{separator}masks/{name}.png\n")
    lists = {"train_list": "train.txt", "val_list": "val.txt"}
    with pytest.raises(DataError, match=r"line 1: .*'images/a\.png' is: .*; remove 'masks/a\.png'"):
        build(root=str(tmp_path), **lists)
    (tmp_path / "train.txt").write_text("images/a.png\n")
    with pytest.raises(DataError, match=r"line 1: .*'images/b\.png' is: "):
        build(root=str(tmp_path), **lists)


def test_a_folder_of_masks_inside_that_of_the_images(tmp_path):
    for name in "abc":
        save(tmp_path / f"{name}.png")
        save(tmp_path / f"masks/{name}.png")
    assert names(build(images=str(tmp_path), masks=str(tmp_path / "masks"))) == ["a", "b", "c"]


def test_other_masks_beside_are_left_alone(tmp_path):
    for name in "abc":
        save(tmp_path / f"images/{name}.png")
        save(tmp_path / f"masks/{name}_labelIds.png")
        save(tmp_path / f"masks/{name}_color.png")
    assert names(build(root=str(tmp_path), mask_suffix="_labelIds")) == ["a", "b", "c"]


def test_names_that_have_nothing_in_common_get_no_proposal():
    assert suffixes_seen(["a.png", "b.png"], ["x.png", "y.png"]) is None
    assert suffixes_seen(["im0.png", "im10.png"], ["im01.png", "im101.png"]) is None
    assert suffixes_seen(["a.jpg", "b.jpg"], ["a-seg.png", "b-seg.png"]) == Suffixes("", "-seg")


def test_a_root_without_images_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.images is .*images', which is not a folder"):
        build(root=str(tmp_path))


def test_hidden_copies_are_passed_over_and_pictures_that_cannot_be_read_are_counted(tmp_path, capsys):
    for name in "abc":
        save(tmp_path / f"images/{name}.png")
        save(tmp_path / f"masks/{name}.png")
    for name in ("._a.png", ".ipynb_checkpoints/a.png", "a.heic", "b.HEIC", "notes.txt", "c.jp2"):
        path = tmp_path / "images" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0\5\26\7")
    np.save(tmp_path / "masks/a.npy", np.zeros(3))
    assert names(build(root=str(tmp_path))) == ["a", "b", "c"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert "2 .heic" in line and "1 .jp2" in line and "txt" not in line
