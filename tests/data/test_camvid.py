"""CamVid, where it is at hand (CAMVID, or beside the repository), and what is said where it is not."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATA
from segtrain.data.survey.stats import frequency
from segtrain.errors import ConfigError, DataError

ROOT = Path(os.environ.get("CAMVID", Path(__file__).parents[2] / "../shared/data/camvid")).resolve()
present = pytest.mark.skipif(
    not (ROOT / "images/train").is_dir(), reason=f"CamVid is not in {ROOT}; set CAMVID to its folder"
)


@present
def test_the_standard_split():
    data = DATA.build({"name": "camvid", "root": str(ROOT)})
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 367, "val": 101}
    assert data.facts.num_classes == len(data.facts.palette) == 11
    assert {pair.group for pair in data.splits["val"].pairs} == {"0016E5"}


@present
def test_the_split_by_drive():
    splits = DATA.build({"name": "camvid", "root": str(ROOT), "split": "drive"}).splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 266, "val": 101}
    groups = {name: {pair.group for pair in split.pairs} for name, split in splits.items()}
    assert groups == {"train": {"0016E5", "0001TP"}, "val": {"0006R0"}}


@present
def test_samples_are_what_pillow_reads():
    split = DATA.build({"name": "camvid", "root": str(ROOT)}).splits["val"]
    sample = split[7]
    assert np.array_equal(sample.image, np.asarray(Image.open(ROOT / f"images/val/{sample.name}.jpg")))
    assert np.array_equal(sample.target, np.asarray(Image.open(ROOT / f"masks/val/{sample.name}.png")))
    assert split.size(7) == (360, 480) and sample.group == "0016E5"


@present
def test_the_class_shares_that_are_known_of_it():
    splits = DATA.build({"name": "camvid", "root": str(ROOT)}).splits
    shares = {}
    for name in splits:
        pixels = frequency(splits[name], 11).pixels
        shares[name] = (100 * pixels / pixels.sum()).round(1)
    assert (shares["train"][10], shares["val"][10]) == (0.3, 2.3)  # bicyclist
    assert (shares["train"][8], shares["val"][8]) == (6.1, 1.8)  # car


def test_another_layout_is_described(tmp_path):
    (tmp_path / "trainannot").mkdir()
    with pytest.raises(
        ConfigError, match=r"has no folder images/train; expected: images/\{train,val\}.*found: trainannot"
    ):
        DATA.build({"name": "camvid", "root": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"data\.root is '/no/such', which is not a folder"):
        DATA.build({"name": "camvid", "root": "/no/such"})
    with pytest.raises(ConfigError, match=r"data\.root is missing"):
        DATA.build({"name": "camvid", "root": None})


def test_lonely_and_missing_frames(tmp_path):
    for part in ("train", "val"):
        for kind, end in (("images", "jpg"), ("masks", "png")):
            (tmp_path / kind / part).mkdir(parents=True)
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / kind / part / f"0016E5_1.{end}")
    with pytest.raises(DataError, match=r"no frame for (the )?val"):
        DATA.build({"name": "camvid", "root": str(tmp_path), "split": "drive"})
    (tmp_path / "masks/val/0016E5_1.png").unlink()
    with pytest.raises(DataError, match="1 frame of val has an image or a mask only: 0016E5_1"):
        DATA.build({"name": "camvid", "root": str(tmp_path)})


def test_a_test_split_where_there_is_one(tmp_path):
    for part in ("train", "val", "test"):
        for kind, end in (("images", "jpg"), ("masks", "png")):
            (tmp_path / kind / part).mkdir(parents=True)
            for name in ("0016E5_1", "0006R0_2") if part == "train" else ("Seq05VD_3",):
                Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / kind / part / f"{name}.{end}")
    splits = DATA.build({"name": "camvid", "root": str(tmp_path)}).splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "val": 1, "test": 1}
    drives = DATA.build({"name": "camvid", "root": str(tmp_path), "split": "drive"}).splits
    assert list(drives) == ["train", "val"]
    (tmp_path / "masks/test/Seq05VD_3.png").unlink()
    with pytest.raises(DataError, match="1 frame of test has an image or a mask only"):
        DATA.build({"name": "camvid", "root": str(tmp_path)})
