"""Samples that cannot be used are found from headers: before the first step in validation, skipped like others
in training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.augmentation import AUGMENTATION
from segtrain.data import DATA
from segtrain.data.files import headers as header_files
from segtrain.data.files import per_file
from segtrain.data.survey.stats import frequency
from segtrain.errors import DataError
from segtrain.loader.fit_samples import Samples
from segtrain.loader.loader import evaluation_batches, training_batches
from segtrain.loader.usable import evaluation_headers, training_dtype, training_headers
from segtrain.settings import Loader


@pytest.fixture
def write(tmp_path, write_pair):
    """write(name, height, width): a black image of 8×8 pixels, or as said, and its mask."""
    return lambda name, *size: write_pair(
        tmp_path, name, np.zeros((*(size or (8, 8)), 3), np.uint8), np.zeros(size or (8, 8), np.uint8)
    )


def as_16_bit(path):
    height, width = np.asarray(Image.open(path)).shape[:2]
    Image.fromarray(np.full((height, width), 40_000, np.uint16)).save(path)


def without_header(path):
    Path(path).write_bytes(b"no image at all")


def larger_mask(path):
    Image.new("L", (9, 9)).save(Path(path).parents[2] / "masks" / Path(path).parent.name / Path(path).name)


FAULTS = {
    without_header: "is not an image that can be read",
    as_16_bit: "has uint16 pixels and the other images have uint8",
    larger_mask: "is 8x8 and its mask .* is 9x9",
}


@pytest.fixture
def data(tmp_path, write):
    """120 training images, 6 of validation."""
    for part, count in (("train", 120), ("val", 6)):
        for number in range(count):
            write(f"{part}/{number}")
    return DATA.build({"name": "folder", "root": str(tmp_path), "classes": ["a", "b"]})


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_training_skips_them_and_counts(data, fault, capsys):
    split = data.splits["train"]
    fault(split.pairs[0].image)
    for on_bad, cache in (("skip", "none"), ("skip", "memory")):
        loader = Loader(batch_size=8, workers=0, on_bad=on_bad, cache=cache)
        with training_batches(split, [], loader, seed=3) as batches:
            names = [name for batch, _ in zip(batches, range(15), strict=False) for name in batch.names]
            assert batches.bad == 1 and len(names) == 120 and "train/0" not in names
        said = capsys.readouterr().err
        assert f"skipped: {'image ' if fault is larger_mask else ''}{split.pairs[0].image} " in said
    with (
        pytest.raises(DataError, match=rf"{split.pairs[0].image}.*{FAULTS[fault]}"),
        training_batches(split, [], Loader(batch_size=8, workers=0), seed=3) as batches,
    ):
        list(zip(batches, range(15), strict=False))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_their_headers_are_left_out_of_the_samples_that_stand_for_training(data, fault):
    split = data.splits["train"]
    fault(split.pairs[0].image)
    assert training_dtype(split) == "uint8"
    assert len(training_headers(split, skip_bad=True)) == 59  # every second one is looked at
    with pytest.raises(DataError, match=FAULTS[fault]):
        training_headers(split, skip_bad=False)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_networks_that_are_fitted_skip_them_too(data, fault, capsys):
    split = data.splits["train"]
    fault(split.pairs[7].image)
    assert len([sample.name for sample in Samples(split, 120, skip_bad=True)]) == 119
    assert split.pairs[7].image in capsys.readouterr().err
    with pytest.raises(DataError, match=FAULTS[fault]):
        list(Samples(split, 120))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_in_evaluation_they_are_errors_before_anything_is_decoded(data, fault, monkeypatch):
    split = data.splits["val"]
    fault(split.pairs[-1].image)
    monkeypatch.setattr(type(split), "__getitem__", None)
    with pytest.raises(DataError, match=rf"{split.pairs[-1].image}.*{FAULTS[fault]}"):
        evaluation_batches(split, 2, 0)


def test_several_are_counted(data):
    split = data.splits["val"]
    for pair in split.pairs[1:3]:
        without_header(pair.image)
    with pytest.raises(DataError, match=r"val/1\.png is not an image.*\(2 such samples of 6\)$"):
        evaluation_headers(split)


def test_validation_images_have_the_type_of_the_training_images(data):
    for pair in data.splits["val"].pairs:
        as_16_bit(pair.image)
    assert len(evaluation_headers(data.splits["val"])) == 6
    with pytest.raises(DataError, match="has uint16 pixels and the other images have uint8"):
        evaluation_headers(data.splits["val"], training_dtype(data.splits["train"]))


def test_nothing_usable_is_an_error(data):
    for pair in data.splits["train"].pairs:
        without_header(pair.image)
    with pytest.raises(DataError, match=r"train/0\.png is not an image"):
        training_headers(data.splits["train"], skip_bad=True)


def test_too_many_pixels_and_32_bits_show_in_the_header(tmp_path, write):
    for number in range(3):
        write(f"val/{number}", 10, 10)
        write(f"train/{number}")
    options = {"name": "folder", "root": str(tmp_path), "classes": ["a"]}
    with pytest.raises(DataError, match=r"val/0\.png has 10x10 = 100 pixels; allowed: 99"):
        evaluation_headers(DATA.build({**options, "max_pixels": 99}).splits["val"])
    (tmp_path / "images/val/1.png").unlink()
    Image.new("F", (10, 10)).save(tmp_path / "images/val/1.tif")
    with pytest.raises(DataError, match=r"val/1\.tif holds 32 bits a channel"):
        evaluation_headers(DATA.build(options).splits["val"])


def test_unreadable_masks_leave_class_frequencies_to_the_others(data):
    split = data.splits["train"]
    without_header(split.pairs[3].mask)
    assert frequency(split, 2, skip_bad=True).pixels.tolist() == [119 * 64, 0]
    with pytest.raises(DataError, match="is not an image"):
        frequency(split, 2)


def test_unreadable_training_masks_leave_the_classes_to_the_others(data, tmp_path, capsys):
    without_header(data.splits["train"].pairs[3].mask)
    options = {"name": "folder", "root": str(tmp_path)}
    assert DATA.build(options, unread_in=["train"]).facts.classes == ("class_0",)
    assert "1 mask is left out where classes are looked for, the first: " in capsys.readouterr().err
    with pytest.raises(DataError, match="is not an image"):
        DATA.build(options)
    without_header(data.splits["val"].pairs[3].mask)
    with pytest.raises(DataError, match=r"masks/val/.*is not an image"):
        DATA.build(options, unread_in=["train"])


def test_evaluations_read_the_headers_of_a_data_set_once(tmp_path, write, monkeypatch):
    reads = []
    original = header_files.read_header
    monkeypatch.setattr(header_files, "read_header", lambda path: reads.append(path) or original(path))
    monkeypatch.setattr(per_file, "CLOCK_S", 0)
    for number in range(10):
        write(number, 8 + number % 2, 8)
    options = {"name": "folder", "root": str(tmp_path), "classes": ["a", "b"], "val_fraction": 0.4}
    data = DATA.build(options)
    num_val = len(data.splits["val"])
    for _ in range(3):
        assert sum(batch.count for batch in evaluation_batches(data.splits["val"], 2, 0)) == num_val
    assert len(reads) == 2 * num_val  # image and mask of each
    warp = AUGMENTATION.build_each({"warp": {"size": 8}})
    for _ in range(2):
        training_batches(data.splits["train"], warp, Loader(batch_size=2, workers=0), 0).close()
    assert len(reads) == 20
    evaluation_batches(DATA.build(options).splits["val"], 2, 0)
    assert len(reads) == 20
