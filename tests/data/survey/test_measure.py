"""What a split holds, beside numpy by hand; and what the cache may remember of it."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from segtrain.augmentation.objects import objects_of
from segtrain.data import DATA
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairs import Pair, PairedFiles
from segtrain.data.joined import ConcatSplit
from segtrain.data.survey.measure import measure
from segtrain.data.survey.stats import class_pixels
from segtrain.errors import DataError
from segtrain.sample import IGNORE, Facts, Sample, voc_palette

FACTS = Facts(("ground", "car", "tree"), voc_palette(3), things=(1,))


class Samples:
    """A split of samples in memory."""

    def __init__(self, *samples: Sample):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    def name(self, index):
        return f"sample {index}"


def drawn(seed: int, height: int, width: int, dtype="uint8", channels: int = 3) -> Sample:
    rng = np.random.default_rng(seed)
    image = rng.random((height, width, channels))
    if dtype != "float32":
        image *= np.iinfo(dtype).max
    target = rng.choice(np.array([0, 1, 2, IGNORE], np.uint8), (height, width), p=[0.5, 0.2, 0.1, 0.2])
    return Sample(image.astype(dtype), target)


@pytest.mark.parametrize(
    ("dtype", "full", "channels"), [("uint8", 255, 3), ("uint16", 65535, 5), ("float32", 1, 1)]
)
def test_pixels_mean_and_std_as_numpy_has_them(dtype, full, channels):
    samples = [drawn(seed, 7 + seed, 11, dtype, channels) for seed in range(5)]
    found = measure(Samples(*samples), FACTS, objects_of)
    images = np.concatenate([one.image.reshape(-1, channels) for one in samples]).astype(np.float64) / full
    assert np.allclose(found.mean, images.mean(axis=0), rtol=1e-12)
    assert np.allclose(found.std, images.std(axis=0), rtol=1e-9)
    assert found.sizes.tolist() == [[7 + seed, 11] for seed in range(5)]
    targets = np.concatenate([one.target.ravel() for one in samples])
    assert found.pixels.sum(axis=0).tolist() == [(targets == index).sum() for index in range(3)]
    assert found.num_unlabelled == (targets == IGNORE).sum()
    assert np.array_equal(found.pixels, class_pixels(Samples(*samples), 3))


def test_objects_are_connected_parts_of_the_things():
    target = np.array([[1, 1, 0, 2], [0, 0, 1, 2], [1, 0, 0, 2], [1, IGNORE, 1, 2]], np.uint8)
    found = measure(Samples(Sample(np.zeros((4, 4, 3), np.uint8), target)), FACTS, objects_of)
    assert [sorted(areas.tolist()) for areas in found.areas] == [[], [1, 2, 3], []]


def test_objects_are_the_instances_where_there_are_any():
    target = np.array([[1, 1, 2, 2], [1, IGNORE, 2, 0], [IGNORE, 0, 0, 0]], np.uint8)
    instances = np.array([[700, 700, 9, 9], [700, 700, 9, 9], [3, 0, 0, 0]], np.uint16)
    sample = Sample(np.zeros((3, 4, 3), np.uint8), target, instances)
    found = measure(Samples(sample), FACTS, objects_of)
    # The object 9 is a tree, as three of its four pixels; the object 3 has no label.
    assert [areas.tolist() for areas in found.areas] == [[], [4], [4]]


def test_a_split_of_others_has_the_sum_of_both(folder):
    splits = folder().splits
    together = measure(ConcatSplit(list(splits.values())), FACTS, objects_of)
    alone = [measure(split, FACTS, objects_of) for split in splits.values()]
    assert together.pixels.tolist() == [row for one in alone for row in one.pixels.tolist()]
    assert together.areas[1].tolist() == [area for one in alone for area in one.areas[1].tolist()]


# --- the cache


@pytest.fixture
def folder(tmp_path, write_pair):
    """A function that builds the data set of a folder whose files are some minutes old."""
    for number in range(6):
        sample = drawn(number, 8, 9)
        name = f"{'train' if number < 4 else 'val'}/{chr(97 + number)}"
        write_pair(tmp_path, name, sample.image, sample.target)
        for kind in ("images", "masks"):
            age(tmp_path / kind / f"{name}.png")
    return lambda: DATA.build({"name": "folder", "root": str(tmp_path), "classes": list(FACTS.classes)})


def age(path) -> None:
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 600))


@pytest.fixture
def later(monkeypatch):
    """The clock of the caches, ten minutes ahead: files of this test count as old."""
    import time

    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 600)


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The masks that have been read."""
    seen: list[str] = []
    target = PairedFiles.target

    def noted(self, index):
        seen.append(os.path.basename(self.pairs[index].mask))
        return target(self, index)

    monkeypatch.setattr(PairedFiles, "target", noted)
    return seen


def test_only_what_has_changed_is_read_again(folder, later, reads, tmp_path):
    before = measure(folder().splits["train"], FACTS, objects_of)
    assert sorted(reads) == ["a.png", "b.png", "c.png", "d.png"]
    reads.clear()
    again = measure(folder().splits["train"], FACTS, objects_of)
    assert not reads and np.array_equal(again.pixels, before.pixels) and again.mean == before.mean
    assert again.std == before.std and again.areas[1].tolist() == before.areas[1].tolist()
    Image.fromarray(np.full((8, 9), 2, np.uint8)).save(tmp_path / "masks/train/b.png")
    changed = measure(folder().splits["train"], FACTS, objects_of)
    assert reads == ["b.png"] and changed.pixels[1].tolist() == [0, 0, 72]
    assert np.array_equal(changed.pixels[[0, 2, 3]], before.pixels[[0, 2, 3]])
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "images/train/c.png")
    reads.clear()
    assert measure(folder().splits["train"], FACTS, objects_of).mean < before.mean and reads == ["c.png"]


def test_other_labels_have_numbers_of_their_own(folder, later, reads, tmp_path):
    pairs = folder().splits["train"].pairs
    measure(PairedFiles(pairs, Labels(3)), FACTS, objects_of)
    swapped = Labels(3, label_map={0: 1, 1: 0, 2: 2})
    found = measure(PairedFiles(pairs, swapped), FACTS, objects_of)
    plain = measure(PairedFiles(pairs, Labels(3)), FACTS, objects_of)
    assert found.pixels[:, [1, 0, 2]].tolist() == plain.pixels.tolist()


def test_object_numbers_that_change_are_read_again(folder, later, tmp_path):
    stored = tmp_path / "numbers.png"
    Image.fromarray(np.full((8, 9), 5, np.uint8)).save(stored)
    age(stored)
    pair = folder().splits["train"].pairs[0]._replace(instances=str(stored))

    def counted():
        split = PairedFiles([pair], Labels(3), objects=numbers)
        return sum(map(len, measure(split, FACTS, objects_of).areas))

    assert (counted(), counted()) == (1, 1)
    Image.fromarray(np.repeat([5, 6, 7], 3)[None].repeat(8, 0).astype(np.uint8)).save(stored)
    assert counted() == 3
    assert sum(map(len, measure(PairedFiles([pair], Labels(3)), FACTS, objects_of).areas)) > 3


def numbers(stored: np.ndarray) -> np.ndarray:
    return stored.astype(np.uint16)


def test_files_that_have_just_been_written_are_not_remembered(folder, reads):
    measure(folder().splits["train"], FACTS, objects_of)
    reads.clear()
    measure(folder().splits["train"], FACTS, objects_of)
    assert len(reads) == 4


def test_other_masks_of_the_same_images_have_numbers_of_their_own(folder, later):
    pairs = folder().splits["train"].pairs
    others = [pair._replace(mask=other.mask) for pair, other in zip(pairs, pairs[::-1], strict=True)]
    found = [measure(PairedFiles(one, Labels(3)), FACTS, objects_of).pixels for one in (pairs, others, pairs)]
    assert np.array_equal(found[1], found[0][::-1]) and np.array_equal(found[2], found[0])


def test_an_image_with_two_masks(folder, later):
    first, second = folder().splits["train"].pairs[:2]
    split = PairedFiles([first, Pair(first.image, second.mask, "other")], Labels(3))
    expected = [[(split.target(place) == index).sum() for index in range(3)] for place in range(2)]
    assert measure(split, FACTS, objects_of).pixels.tolist() == expected


def test_unreadable_samples_are_an_error(folder, tmp_path):
    for name in "ac":
        (tmp_path / f"images/train/{name}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"train/a\.png is not an image.*2 such samples of 4.*data check"):
        measure(folder().splits["train"], FACTS, objects_of)
