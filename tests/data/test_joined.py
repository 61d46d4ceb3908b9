import numpy as np
import pytest
from PIL import Image

from segtrain.commands.dataset import split_of
from segtrain.data import DATA
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairs import Pair, PairedFiles
from segtrain.data.joined import ConcatSplit
from segtrain.errors import ConfigError, DataError


def test_every_sample_of_all_splits_in_order():
    data = DATA.build({"name": "shapes", "num_train": 5, "num_val": 3})
    joined = split_of(data, "all")
    parts = [data.splits[name][i] for name in ("train", "val") for i in range(len(data.splits[name]))]
    assert len(joined) == len(parts) == 8
    for index, part in enumerate(parts):
        assert (joined[index].image == part.image).all()
        assert (joined.target(index) == part.target).all()
        assert joined.size(index) == part.image.shape[:2]
    with pytest.raises(IndexError):
        joined[8]


def test_headers_come_in_the_order_asked_for(tmp_path):
    for name, width in (("a", 5), ("b", 6), ("c", 7)):
        Image.new("L", (width, 4)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    pair = {name: Pair(*[str(tmp_path / f"{name}.png")] * 2, name) for name in "abc"}
    joined = ConcatSplit(
        [PairedFiles([pair["a"], pair["c"]], Labels(1)), PairedFiles([pair["b"]], Labels(1))]
    )
    last, broken, first = joined.headers([2, 1, 0])
    assert (last.width, first.width) == (6, 5) and isinstance(broken, DataError)


def test_a_split_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(ConfigError, match=r"split=alll does not exist.*did you mean 'all'.*train, val, all"):
        split_of(DATA.build({"name": "shapes"}), "alll")


def upper(stored: np.ndarray) -> np.ndarray:
    return np.where(stored >= 1000, stored, 0).astype(np.uint16)


def test_object_numbers_are_read_beside_the_mask(tmp_path):
    stored = np.array([[0, 7, 24001], [26000, 999, 1000]], np.uint16)
    Image.fromarray(stored).save(tmp_path / "objects.png")
    for name in ("image", "mask"):
        Image.new("L", (3, 2)).save(tmp_path / f"{name}.png")
    paths = [str(tmp_path / f"{name}.png") for name in ("image", "mask", "objects")]
    split = PairedFiles([Pair(*paths[:2], "image", instances=paths[2])], Labels(1), objects=upper)
    assert split[0].instances.tolist() == [[0, 0, 24001], [26000, 0, 1000]]
    assert split[0].instances.dtype == np.uint16
    Image.new("I;16", (2, 2)).save(tmp_path / "objects.png")
    with pytest.raises(DataError, match=r"objects\.png is 2x2"):
        split[0]
