"""Folds and shares of any data set."""

import numpy as np
import pytest

from segtrain.commands.dataset import data_of
from segtrain.data import DATA
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairs import Pair, PairedFiles
from segtrain.data.joined import ConcatSplit
from segtrain.data.parts import Data
from segtrain.data.selection import folds_of, names_and_groups, selected
from segtrain.errors import ConfigError
from segtrain.sample import CLASSES, Facts
from segtrain.settings import Sampler


def drives(root="/a") -> Data:
    """40 frames of 7 drives, in a split by frames: train and val both hold frames of every drive."""
    pairs = [
        Pair(f"{root}/images/{drive}_{frame}.png", f"{root}/masks/{drive}_{frame}.png", f"{drive}_{frame}", drive)
        for drive, frames in zip("abcdefg", (12, 8, 6, 5, 4, 3, 2), strict=True)
        for frame in range(frames)
    ]  # fmt: skip
    splits = {
        "train": [pair for number, pair in enumerate(pairs) if number % 4],
        "val": pairs[::4],
        "test": [Pair("t", "t", "t", "t")],
    }
    facts = Facts(classes=("x", "y"), palette=((0, 0, 0), (9, 9, 9)))
    return Data(facts, {name: PairedFiles(found, Labels(2)) for name, found in splits.items()})


def names(split) -> list[str]:
    return [name for name, _ in names_and_groups(split)]


def groups(split) -> set[str]:
    return {group for _, group in names_and_groups(split)}


def test_a_smaller_share_is_part_of_a_larger_one_wherever_the_files_lie():
    before: set[str] = set()
    for fraction, number in ((0.01, 1), (0.1, 3), (0.2, 6), (0.5, 15), (1.0, 30)):
        data = selected(drives(), Sampler(fraction=fraction))
        train = names(data.splits["train"])
        assert len(train) == number == len(set(train)) and before <= set(train)
        before = set(train)
        assert names(selected(drives("/other"), Sampler(fraction=fraction)).splits["train"]) == train
        assert names(data.splits["val"]) == names(drives().splits["val"])  # only training is cut
    assert train == names(drives().splits["train"])


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_are_a_partition_that_keeps_groups(folds):
    held_out = []
    for fold in range(folds):
        data = selected(drives(), Sampler(folds=folds, fold=fold))
        train, val = data.splits["train"], data.splits["val"]
        assert not groups(train) & groups(val)
        assert len(train) + len(val) == 40 == len({*names(train), *names(val)})
        assert names(data.splits["test"]) == ["t"]
        held_out += names(val)
    assert sorted(held_out) == sorted(names(ConcatSplit([drives().splits["train"], drives().splits["val"]])))
    sizes = np.bincount(folds_of(names_and_groups(ConcatSplit(list(drives().splits.values())[:2])), folds))
    assert sizes.max() - sizes.min() <= (12 - 2 if folds == 7 else 3)


def test_folds_do_not_depend_on_the_order_of_the_files():
    files = [(f"{group}{number}", group if group < "d" else "") for group in "abcde" for number in range(5)]
    found = dict(zip(files, folds_of(files, 3), strict=True))
    assert found == dict(zip(files[::-1], folds_of(files[::-1], 3), strict=True))
    assert set(found.values()) == {0, 1, 2} and len({found["d0", ""], found["d1", ""], found["d2", ""]}) > 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"folds": 8}, "7 groups of samples, which are kept together; allowed: 2 to 7"),
        ({"folds": 5, "fold": 5}, "allowed: 0 to 4"),
        ({"fold": 1}, "set sampler.folds"),
    ],
)
def test_folds_that_do_not_exist(settings, words):
    with pytest.raises(ConfigError, match=words):
        selected(drives(), Sampler(**settings))


def test_any_data_set_has_folds_and_shares():
    data = selected(
        DATA.build({"name": "shapes", "num_train": 8, "num_val": 4}), Sampler(folds=4, fraction=0.5)
    )
    train, val = data.splits["train"], data.splits["val"]
    assert (len(train), len(val)) == (4, 3)
    seen = {val[index].name for index in range(3)} | {train[index].name for index in range(4)}
    assert len(seen) == 7 and train.headers([0]) and train.target(0).shape == val.size(0)


def test_a_run_is_scored_on_its_own_fold():
    config = {"name": "shapes", "num_train": 8, "num_val": 4, "size": 48}
    run = {"config": {"data": config, "sampler": {"folds": 4, "fold": 1}}}
    val = data_of({"data": config}, "run", run, CLASSES).splits["val"]
    expected = selected(DATA.build(config), Sampler(folds=4, fold=1)).splits["val"]
    assert names(val) == names(expected) and len(val) == 3
    run["config"].pop("sampler")  # of an earlier version
    assert len(data_of({"data": config}, "run", run, CLASSES).splits["val"]) == 4
