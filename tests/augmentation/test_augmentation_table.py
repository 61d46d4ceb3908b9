"""Every entry and every menu builds, keeps the contract and is a function of its generator."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from segtrain.augmentation import AUGMENTATION, apply, needs_instances, output_size
from segtrain.data import DATA
from segtrain.data.survey.stats import Frequency
from segtrain.sample import IGNORE

CONF = Path(__file__).parents[2] / "conf/augmentation"
SIZED = ("cityscapes_512x1024", "cityscapes_768", "object_crops", "patch", "voc_512")
MENUS = sorted(path.stem for path in CONF.glob("*.yaml"))


def written(name):
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def build(config):
    frequency = Frequency(np.ones(8, np.int64), np.ones(8, np.int64))
    return AUGMENTATION.build_each(
        config, ignore_index=IGNORE, fill=(1, 2, 3), class_frequency=lambda: frequency
    )


@pytest.mark.parametrize("name", MENUS)
def test_every_menu_keeps_the_contract(name):
    ops = build(written(name))
    size = output_size(ops) or (64, 64)
    assert (size == (64, 64)) == (name not in SIZED)
    shapes = DATA.build({"name": "shapes", "size": 64}).splits["train"]
    sample, others = shapes[0], []

    def draw(rng):
        others.append(shapes[int(rng.integers(1, 9))])
        return others[-1]

    for seed in range(5):
        found = apply(ops, sample, np.random.default_rng(seed), draw)
        again = apply(pickle.loads(pickle.dumps(ops)), sample, np.random.default_rng(seed), draw)
        assert (
            found.image.dtype == np.uint8
            and found.image.shape == (*size, 3)
            and found.target.dtype == np.uint8
        )
        classes = {int(label) for one in (sample, *others) for label in np.unique(one.target)}
        assert set(np.unique(found.target).tolist()) <= {*classes, IGNORE}
        assert np.array_equal(found.image, again.image) and np.array_equal(found.target, again.target)
        assert found.name == sample.name


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"warp": {"size": 24}, "colour": {}}, (24, 24)),
        ({"warp": {"size": [16, 40]}, "pixel": {}}, (16, 40)),
        ({"warp": {"size": 40}, "patch": {"size": 9}}, (9, 9)),
        ({"patch": {"size": 9}, "warp": {}}, (9, 9)),
        ({"object_crops": {"size": 32, "resized": 40}}, (32, 32)),
        ({"warp": {}, "colour": {}, "pixel": {}}, None),
        ({}, None),
    ],
    ids=str,
)
def test_operations_declare_the_size_they_give(config, size):
    ops, sample = build(config), DATA.build({"name": "shapes", "size": 64}).splits["train"][0]
    assert output_size(ops) == size
    assert apply(ops, sample, np.random.default_rng(0), None).image.shape[:2] == (size or (64, 64))


@pytest.mark.parametrize("name", MENUS)
def test_instances_change_only_what_says_that_it_needs_them(name):
    """Where no operation needs them, their files are not read, and the samples are the same."""
    config = written(name)
    if "warp" in config:
        config["warp"]["size"] = 64
    ops = build(config)
    sample, other = map(DATA.build({"name": "shapes", "size": 64}).splits["train"].__getitem__, (0, 1))
    whole, without = (
        [apply(ops, one, np.random.default_rng(seed), lambda rng, two=two: two) for seed in range(8)]
        for one, two in ((sample, other), (replace(sample, instances=None), replace(other, instances=None)))
    )
    same = all(
        (a.image == b.image).all() and (a.target == b.target).all()
        for a, b in zip(whole, without, strict=True)
    )
    assert same or needs_instances(ops)


def test_operations_that_need_instances():
    sizes = {"object_crops": {"size": 32, "resized": 40}, "warp": {}}
    assert [needs_instances(build({name: sizes[name]})) for name in sizes] == [True, False]
    assert needs_instances([lambda sample, rng, draw: sample]), "one that does not say so"


def test_none_is_none():
    assert written("none") == {} and build(written("none")) == []


def test_operations_apply_in_the_order_written():
    assert [type(op).__name__ for op in build({"colour": {}, "warp": {}})] == ["Colour", "Warp"]
    assert [type(op).__name__ for op in build({"warp": {}, "colour": None})] == ["Warp"]
