"""Every entry of the table keeps the promises that the other parts build on."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segtrain.data import DATA
from segtrain.options import REQUIRED, options_of
from segtrain.sample import IGNORE, Facts

CONF = Path(__file__).parents[2] / "conf/data"


@pytest.fixture(params=DATA.names())
def built(request, tmp_path):
    """Each entry on data small enough for a test."""
    for part in ("train", "val"):
        for number in range(3):
            for kind, mode in (("images", "RGB"), ("masks", "L")):
                (tmp_path / kind / part).mkdir(parents=True, exist_ok=True)
                Image.new(mode, (20, 16), number if mode == "L" else (9, 9, 9)).save(
                    tmp_path / kind / part / f"{number}.png"
                )
    options = {} if request.param == "shapes" else {"root": str(tmp_path)}
    return DATA.build({"name": request.param, **options})


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


@pytest.mark.parametrize("name", DATA.names())
def test_the_yaml_is_the_signature(name):
    written = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    options = options_of(DATA.factory(name))
    assert list(written) == ["name", *options] and written["name"] == name
    for key, option in options.items():
        assert written[key] == (None if option.default is REQUIRED else option.default), key
        assert option.meaning, key
