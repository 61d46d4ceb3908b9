"""The check of a data set finds each kind of fault that was put into a folder, and none where there is none."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATA
from segtrain.data.parts import Data
from segtrain.data.survey.check import findings
from segtrain.data.survey.kinds import KINDS, SHOWN, lines, num_wrong
from segtrain.data.survey.one import difference_hash
from segtrain.errors import DataError
from segtrain.sample import Facts, Sample, voc_palette

NAMES = ["background", "road", "car", "tree"]
CAMVID = Path(os.environ.get("CAMVID", Path(__file__).parents[3] / "../shared/data/camvid")).resolve()
TIMES = 3


def photo(rng, height: int = 24, width: int = 32) -> np.ndarray:
    coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def labels(height: int = 24, width: int = 32) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[4:, :8], mask[4:, 8:16], mask[4:, 16:24], mask[:2] = 1, 2, 3, 255
    return mask


@pytest.fixture
def folder(tmp_path, write_pair):
    """`put(name, image=…, mask=…)` writes a pair into a folder with 12 faultless ones; what is left out is
    faultless."""
    rng = np.random.default_rng(0)

    def put(name: str, image=None, mask=None) -> Path:
        write_pair(tmp_path, name, photo(rng) if image is None else image, labels() if mask is None else mask)
        return tmp_path

    for split, num in (("train", 8), ("val", 4)):
        for number in range(num):
            put(f"{split}/fine{chr(97 + number)}")
    return put


def found(root: Path, similar: bool = False, **options) -> list:
    options = {"classes": NAMES, **options}
    data = DATA.build({"name": "folder", "root": str(root), **options}, unread_in=("train", "val", "test"))
    return findings(data, similar=similar)


def truncated(put, name):
    path = put(name) / "images" / f"{name}.png"
    path.write_bytes(path.read_bytes()[:-200])


def truncated_mask(put, name):
    path = put(name) / "masks" / f"{name}.png"
    path.write_bytes(path.read_bytes()[:60])


def swapped(put, name):
    rng = np.random.default_rng(sum(map(ord, name)))
    put(name, image=labels(), mask=photo(rng))


def swapped_palette(put, name):
    swapped(put, name)
    path = put(name) / "images" / f"{name}.png"
    mask = Image.fromarray(labels(), "P")
    mask.putpalette([value for colour in voc_palette(256) for value in colour])
    mask.save(path)
    rng = np.random.default_rng(sum(map(ord, name)))
    Image.fromarray(photo(rng)).save(path.parents[2] / "masks" / f"{name}.png")


def off_by_one(put, name):
    mask = labels()
    mask[mask < 255] += 1
    put(name, mask=mask)


def duplicate(put, name):
    image = photo(np.random.default_rng(sum(map(ord, name))))
    put(name, image=image)
    put(name.replace("train", "val") + "again", image=image)


def zero_255(put, name):
    put(name, mask=np.where(labels() == 2, 255, 0).astype(np.uint8))


def coloured(put, name):
    put(name, mask=np.asarray(voc_palette(256), np.uint8)[labels()])


def another_size(put, name):
    put(name, mask=labels(24, 30))


def unknown_value(put, name):
    mask = labels()
    mask[10, 10] = 77
    put(name, mask=mask)


def unlabelled(put, name):
    put(name, mask=np.full((24, 32), 255, np.uint8))


def background(put, name):
    put(name, mask=np.zeros((24, 32), np.uint8))


def deep(put, name):
    put(name, image=np.full((24, 32), 300 + sum(map(ord, name)), np.uint16))


SEEDED = {
    truncated: "unreadable",
    truncated_mask: "unreadable",
    swapped: "swapped",
    swapped_palette: "swapped",
    off_by_one: "off_by_one",
    duplicate: "duplicate",
    zero_255: "zero_255",
    coloured: "coloured",
    another_size: "size",
    unknown_value: "value",
    unlabelled: "unlabelled",
    background: "background",
    deep: "pixel_type",
}


@pytest.mark.parametrize("fault", SEEDED, ids=lambda fault: fault.__name__)
def test_each_fault_is_found_as_often_as_it_occurs(folder, fault):
    names = [f"train/{letter}" for letter in "xyz"][:TIMES]
    for name in names:
        fault(folder, name)
    root = folder("train/last")
    listed = found(root)
    assert Counter(one.kind for one in listed) == {SEEDED[fault]: TIMES}
    for name, one in zip(names, listed, strict=True):
        assert f"{name}.png" in one.message
        assert one.samples[0].split == "train" and one.samples[0].name.endswith(f"{name}.png")


@pytest.mark.parametrize("split", ["train", "val"])
def test_without_classes_unreadable_masks_of_every_split_are_listed(folder, split):
    """The classes are those that the other masks hold."""
    for letter in "xyz":
        truncated_mask(folder, f"{split}/{letter}")
    listed = found(folder("train/last"), classes=None)
    assert [(one.kind, one.samples[0].split) for one in listed] == [("unreadable", split)] * 3


def test_all_faults_at_once_are_told_apart(folder):
    for number, fault in enumerate(SEEDED):
        for letter in "xyz":
            fault(folder, f"train/{letter * (number + 1)}")
    expected = Counter()
    for kind in SEEDED.values():
        expected[kind] += TIMES
    listed = found(folder("train/last"))
    assert Counter(one.kind for one in listed) == expected
    messages = {kind: [one.message for one in listed if one.kind == kind] for kind in KINDS}
    text = lines(messages)
    assert any(line.startswith("6 pairs have image and mask interchanged") for line in text)
    assert f"  … and {6 - SHOWN} more (json=true lists all)" in text
    assert num_wrong(messages) == sum(n for kind, n in expected.items() if KINDS[kind].wrong)


def test_a_faultless_folder(folder):
    assert found(folder("train/more"), similar=True) == []


def test_several_faults_of_one_sample_are_all_listed(folder):
    folder("train/x", mask=np.full((20, 30), 4, np.uint8))
    listed = found(folder("train/last"))
    assert [one.kind for one in listed] == ["off_by_one", "size"]
    assert "holds 4 (600 px)" in listed[0].message and "24x32" in listed[1].message


def test_without_a_palette_0_and_255_are_two_classes_and_with_one_they_are_not(folder, tmp_path):
    zero_255(folder, "train/x")
    path = tmp_path / "masks" / "train" / "x.png"
    mask = Image.open(path)
    mask.load()
    mask.putpalette([value for colour in voc_palette(256) for value in colour])
    mask.save(path)
    assert [one.kind for one in found(tmp_path)] == ["background"]
    assert found(tmp_path, label_map={0: 0, 1: 1, 2: 2, 3: 3, 255: 3}) == []


def test_similar_images_in_two_splits(folder, tmp_path):
    for number, name in enumerate("xyz"):
        image = photo(np.random.default_rng(100 + number), 120, 160)
        folder(f"train/{name}", image=image, mask=labels(120, 160))
        smaller = Image.fromarray(image).resize((80, 60), Image.Resampling.BICUBIC)
        folder(f"val/{name}", image=np.asarray(smaller), mask=labels(60, 80))
    assert found(tmp_path) == []
    listed = found(tmp_path, similar=True)
    assert [one.kind for one in listed] == ["similar"] * 3
    for name, one in zip("xyz", listed, strict=True):
        assert f"val/{name}.png (val) looks like" in one.message and f"train/{name}.png" in one.message


def test_the_hash_of_images_by_hand():
    rising = np.broadcast_to(np.arange(9, dtype=np.uint8), (8, 9))[..., None]
    assert difference_hash(rising) == 2**64 - 1 and difference_hash(255 - rising) == 0
    step = rising.copy()
    step[0, 8] = 0  # one area darker than its left neighbour
    assert difference_hash(step) == 2**64 - 1 - (1 << 56)


def test_classes_without_pixels(folder, tmp_path):
    listed = found(tmp_path, classes=[*NAMES, "boat"])
    assert [one.message for one in listed] == ["class 4 'boat': in no split"]
    mask = labels()
    mask[10] = 4
    folder("val/x", mask=mask)
    listed = found(tmp_path, classes=[*NAMES, "boat"])
    assert [one.message for one in listed] == ["class 4 'boat': not in train"]


class Drawn:
    """A split without files; sample 1 cannot be read."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index == 1:
            raise DataError("record 1 is damaged")
        image = np.full((4, 4, 3), index, np.uint8)
        return Sample(image, np.full((4, 4), index, np.uint8), name=self.name(index))

    def name(self, index):
        return f"record {index}"


class Grouped:
    """A split of samples that are told apart by a number, with the groups of `groups`."""

    def __init__(self, start: int, groups: str):
        self.start, self.groups = start, groups

    def __len__(self):
        return len(self.groups)

    def __getitem__(self, index):
        image, target = np.full((4, 4, 3), self.start + index, np.uint8), np.zeros((4, 4), np.uint8)
        return Sample(image, target, name=self.name(index), group=self.groups[index])

    def name(self, index):
        return f"record {self.start + index}"


def test_groups_in_two_splits():
    facts = Facts(("a",), voc_palette(1))
    listed = findings(Data(facts, {"train": Grouped(0, "aabcd"), "val": Grouped(5, "abce")}))
    assert [one.kind for one in listed] == ["group"] * 3
    assert listed[0].message == "group 'a': 2 in train, 1 in val"
    assert [one.name for one in listed[0].samples] == ["record 0", "record 1", "record 5"]
    assert not KINDS["group"].wrong
    # One group alone says nothing.
    assert findings(Data(facts, {"train": Grouped(0, "aa"), "val": Grouped(5, "aa")})) == []


class Twice:
    """A split that serves each sample of another one twice."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return 2 * len(self.split)

    def __getitem__(self, index):
        return self.split[index // 2]

    def place(self, index):
        return self.split, index // 2

    def name(self, index):
        return self.split.name(index // 2)


def test_data_sets_without_files_and_splits_that_repeat_samples():
    facts = Facts(("a", "b", "c"), voc_palette(3))
    listed = findings(Data(facts, {"train": Twice(Drawn())}))
    assert [(one.kind, one.message) for one in listed] == [
        ("unreadable", "record 1 is damaged"),
        ("absent", "class 1 'b': in no split"),
    ]


@pytest.mark.skipif(
    not (CAMVID / "images/train").is_dir(), reason=f"CamVid is not in {CAMVID}; set CAMVID to its folder"
)
def test_nothing_is_found_in_camvid():
    """But that the standard validation split is part of a training drive."""
    listed = findings(DATA.build({"name": "camvid", "root": str(CAMVID)}), similar=True)
    assert [one.message for one in listed] == ["group '0016E5': 204 in train, 101 in val"]
    assert not KINDS["group"].wrong
