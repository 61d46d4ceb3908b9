"""ADE20K in the layout of the scene parsing challenge."""

import numpy as np
import pytest
import trees
from PIL import Image

from segtrain.data import DATA
from segtrain.data.ade20k import CLASSES, PALETTE, THINGS
from segtrain.errors import ConfigError, DataError


def build(root):
    return DATA.build({"name": "ade20k", "root": str(root)})


def test_the_table_of_classes():
    assert len(CLASSES) == len(set(CLASSES)) == len(PALETTE) == 150 and len(THINGS) == 100
    # Lines of objectInfo150.txt (Idx, Name) and colours of color150.mat.
    known = {
        1: ("wall", (120, 120, 120)),
        2: ("building", (180, 120, 120)),
        13: ("person", (150, 5, 61)),
        21: ("car", (0, 102, 200)),
        60: ("stairway", (31, 0, 255)),
        90: ("television receiver", (0, 255, 194)),
        105: ("fountain", (8, 184, 170)),
        122: ("step", (255, 0, 143)),
        137: ("traffic light", (41, 0, 255)),
        139: ("ashcan", (173, 0, 255)),
        150: ("flag", (92, 0, 255)),
    }
    assert {number: (CLASSES[number - 1], PALETTE[number - 1]) for number in known} == known
    # Two classes share a colour in the official table.
    assert len(set(PALETTE)) == 149 and PALETTE[CLASSES.index("skyscraper")] == PALETTE[CLASSES.index("road")]
    assert {"bed", "person", "car", "flag"} <= {CLASSES[index] for index in THINGS}
    assert not {"wall", "sky", "tree", "sea"} & {CLASSES[index] for index in THINGS}


@pytest.mark.parametrize("below", ["", "ADEChallengeData2016"])
def test_values_are_one_above_the_class_and_0_is_no_label(tmp_path, below, capsys):
    trees.write_ade20k(tmp_path)
    data = build(tmp_path / below)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 3, "val": 2}
    sample = data.splits["val"][1]
    assert sample.name == "ADE_val_00000013"
    assert sample.target[0].tolist() == [255] * 4 + [12] * 8 + [149] * 4
    assert data.facts.classes[12] == "person"
    image = Image.open(tmp_path / "ADEChallengeData2016/images/validation/ADE_val_00000013.jpg")
    assert np.array_equal(sample.image, np.asarray(image))
    assert "train has 3 of 20210 images, val has 2 of 2000" in capsys.readouterr().err


def test_a_value_of_no_class(tmp_path):
    folder = trees.write_ade20k(tmp_path)
    Image.fromarray(np.full(trees.SIZE, 151, np.uint8)).save(
        folder / "annotations/training/ADE_train_00000001.png"
    )
    with pytest.raises(
        DataError, match=r"ADE_train_00000001\.png holds 151 \(192 px\).*; correct the mask, or unpack"
    ):
        build(tmp_path).splits["train"][0]


def test_wrong_layouts(tmp_path):
    with pytest.raises(ConfigError, match="is '/no/such', which is not a folder"):
        build("/no/such")
    with pytest.raises(
        ConfigError, match=r"no folder ADEChallengeData2016, .*2016\.zip holds; found: nothing"
    ):
        build(tmp_path)
    folder = trees.write_ade20k(tmp_path)
    (folder / "images/validation/ADE_val_00000001.jpg").unlink()
    with pytest.raises(DataError, match="in validation 1 file has an image or a mask only, ADE_val_00000001"):
        build(tmp_path)
    (folder / "annotations/validation").rename(tmp_path / "away")
    with pytest.raises(ConfigError, match="has no folder annotations/validation, which ADEChallengeData2016"):
        build(tmp_path)


def test_masks_that_were_converted_are_refused(tmp_path):
    """As detectron2's and mmsegmentation's scripts write them: values one less, 255 for no label."""
    folder = trees.write_ade20k(tmp_path)
    path = folder / "annotations/training/ADE_train_00000002.png"
    Image.fromarray(np.asarray(Image.open(path)) - np.uint8(1)).save(path)
    with pytest.raises(
        DataError, match=r"00000002\.png holds 255 \(48 px\); allowed: 0\.\.150 .*unpack the original"
    ):
        build(tmp_path).splits["train"].target(1)
