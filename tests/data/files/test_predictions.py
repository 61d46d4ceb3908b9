"""Predicted masks of other programs: which file belongs to which image, and what it holds."""

import numpy as np
import pytest
from PIL import Image

from segtrain.data.files.labels import Labels
from segtrain.data.files.pairs import Pair, PairedFiles, composed
from segtrain.data.files.predictions import core, labels_of, matched, read_prediction
from segtrain.data.joined import ConcatSplit, SubsetSplit
from segtrain.data.resized import Resized
from segtrain.errors import ConfigError, DataError


def write(path, size=(4, 6), value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)
    return str(path)


@pytest.fixture
def split_of(tmp_path):
    def split(*names):
        paths = [write(tmp_path / "images" / f"{name}.png") for name in names]
        pairs = [Pair(path, path, name, "") for path, name in zip(paths, names, strict=True)]
        return PairedFiles(pairs, Labels(3))

    return split


@pytest.fixture
def predicted(tmp_path):
    def fill(*names, **options):
        for name in names:
            write(tmp_path / "out" / f"{name}.png", **options)
        return str(tmp_path / "out")

    return fill


NAMES = ("one", "two")
CITY = ("bonn/bonn_000000_000019_leftImg8bit", "ulm/ulm_000001_000019_leftImg8bit")


@pytest.mark.parametrize(
    ("images", "files"),
    [
        (NAMES, NAMES),
        (NAMES, ("two", "one")),
        (NAMES, ("two_pred", "one_pred")),
        (NAMES, ("deep/two", "down/one")),
        (("a/one", "b/one"), ("a/one", "b/one")),
        (("a/one", "b/one"), ("x/a/one", "x/b/one")),
        (("one_mask_b", "one_mask_c"), ("one_mask_b", "one_mask_c")),
        (CITY, CITY),
        (CITY, ("bonn_000000_000019", "ulm_000001_000019_gtFine_labelIds")),
        (CITY, ("bonn_000000_000019_leftImg8bit_ours", "ulm_000001_000019_pred_labelTrainIds")),
        (("Stra\u00dfe e\u0301", "two"), ("Stra\u00dfe \u00e9", "two")),
    ],
)
def test_files_are_found_by_name(split_of, predicted, tmp_path, images, files):
    paths = matched(split_of(*images), predicted(*files))
    assert len(set(paths)) == 2
    for path, image in zip(paths, images, strict=True):
        assert core(composed(path).split("/")[-1][:-4]) == core(composed(image).split("/")[-1])
    if "a/one" in images:
        assert [path.split("/")[-2] for path in paths] == ["a", "b"]


@pytest.mark.parametrize(
    ("images", "files", "words"),
    [
        (NAMES, ("one",), r"1 image has no prediction \(\S*two.png\)"),
        (NAMES, (*NAMES, "three"), r"1 file belongs to no image of the split \(three\)"),
        (NAMES, (*NAMES, "more/one"), r"1 image has several predictions \(more/one and one\)"),
        (CITY, (*CITY, "bonn_000000_000019_b", "bonn_000000_000019_c"), r"2 files belong to no image"),
        (("a/one", "b/one"), ("one",), r"2 images have no prediction"),
        (("a/one", "b/one"), ("a/one",), r"1 image has no prediction \(\S*b/one.png\)"),
    ],
)
def test_what_does_not_fit_is_named(split_of, predicted, images, files, words):
    with pytest.raises(DataError, match=words):
        matched(split_of(*images), predicted(*files))


def test_files_of_another_size_are_named(split_of, predicted):
    folder = predicted("one")
    predicted("two", size=(4, 5))
    with pytest.raises(DataError, match=r"1 file has another size .*two.png is 4x5, the image 4x6"):
        matched(split_of(*NAMES), folder)


def test_a_folder_that_does_not_exist(split_of):
    with pytest.raises(ConfigError, match="predictions=nowhere is not a folder"):
        matched(split_of(*NAMES), "nowhere")


def test_grey_and_palette_files_hold_indices(tmp_path):
    values = np.array([[0, 1, 2, 255]], np.uint8)
    picture = Image.fromarray(values)
    picture.save(tmp_path / "grey.png")
    picture.putpalette([9, 9, 9, 200, 0, 0] + 254 * [7, 7, 7])
    picture.save(tmp_path / "palette.png")
    Image.fromarray(np.repeat(values[..., None], 3, axis=2)).save(tmp_path / "rgb.png")
    for name in ("grey", "palette", "rgb"):
        assert read_prediction(str(tmp_path / f"{name}.png"), 3).tolist() == [[0, 1, 2, 3]]
    with pytest.raises(DataError, match=r"grey.png holds 2; allowed with ids=classes: 0..1 and 255"):
        read_prediction(str(tmp_path / "grey.png"), 2)
    Image.fromarray(np.array([[[1, 2, 3]]], np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match="holds colours"):
        read_prediction(str(tmp_path / "colour.png"), 3)


def test_files_that_hold_the_values_of_the_masks(tmp_path):
    Image.fromarray(np.array([[7, 8, 0]], np.uint8)).save(tmp_path / "ids.png")
    labels = Labels(2, label_map={7: 0, 8: 1, 0: 255})
    assert read_prediction(str(tmp_path / "ids.png"), 2, labels).tolist() == [[0, 1, 2]]
    with pytest.raises(DataError, match="holds 0 "):
        read_prediction(str(tmp_path / "ids.png"), 2, Labels(2, label_map={7: 0, 8: 1}))


def test_labels_are_found_below_other_splits(split_of):
    split = split_of(*NAMES)
    for outer in (split, ConcatSplit([split]), SubsetSplit(ConcatSplit([split]), [0]), Resized(split, 5)):
        assert labels_of(outer) is split.labels
    assert labels_of([]) is None
