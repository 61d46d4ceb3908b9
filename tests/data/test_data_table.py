"""Every entry of the table keeps the promises that the other parts build on."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import trees

from segtrain.data import DATA
from segtrain.sample import IGNORE, Facts


@pytest.fixture(params=DATA.names())
def built(request, tmp_path, write_pair):
    """Each entry on data small enough for a test: the tree of the set's own tests, or drawn pairs."""
    tree = Path(__file__).parent / request.param / "tree"
    for part in ("train", "val"):
        for number in range(3):
            image, mask = np.full((16, 20, 3), 9, np.uint8), np.full((16, 20), number, np.uint8)
            write_pair(tmp_path, f"{part}/{number}", image, mask)
    for write in (trees.write_voc_aug, trees.write_ade20k):
        write(tmp_path)
    root = str(tree if tree.is_dir() else tmp_path)
    options = {"shapes": {}, "concat": {"sets": {"shapes": {}, "mine": {"name": "folder", "root": root}}}}
    return DATA.build({"name": request.param, **options.get(request.param, {"root": root})})


def test_facts_and_splits_fit_together(built):
    facts = built.facts
    assert {"train", "val"} <= set(built.splits)
    assert len(facts.palette) == facts.num_classes and set(facts.things) <= set(range(facts.num_classes))
    assert facts.ignore_index >= facts.num_classes
    assert Facts.from_plain(facts.plain()) == facts


def test_samples_keep_the_contract(built):
    for split in built.splits.values():
        sample = split[0]
        height, width, channels = sample.image.shape
        assert channels == built.facts.channels and sample.image.dtype in (np.uint8, np.uint16, np.float32)
        assert sample.target.shape == (height, width) == split.size(0) and sample.target.dtype == np.uint8
        assert set(np.unique(sample.target).tolist()) <= {*range(built.facts.num_classes), IGNORE}
        assert sample.instances is None or (
            sample.instances.shape == (height, width) and sample.instances.dtype == np.uint16
        )
        assert sample.name and isinstance(split.name(0), str)


def test_splits_can_be_sent_to_workers(built):
    split = pickle.loads(pickle.dumps(built.splits["train"]))
    assert np.array_equal(split[1].image, built.splits["train"][1].image)
