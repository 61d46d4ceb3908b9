"""Masks in one folder a label become targets of one channel a label."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.data.folder import folder
from segtrain.errors import ConfigError, DataError
from segtrain.sample import CLASSES, Target

LABELS = Target(classes=False, labels=True)


def write(path: Path, values) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def tree(root: Path, names=("train/a", "train/b", "val/c"), on=255) -> dict[str, np.ndarray]:
    """Images of 6×8 pixels below ROOT with masks of road and water, 0 or `on`; {name: H×W×2 truth}."""
    rng, truth = np.random.default_rng(0), {}
    for name in names:
        write(root / "images" / f"{name}.png", rng.integers(0, 256, (6, 8, 3)))
        truth[name] = rng.integers(0, 2, (6, 8, 2))
        for place, label in enumerate(("road", "water")):
            write(root / "masks" / label / f"{name}.png", on * truth[name][..., place])
    return truth


def built(root: Path, **options):
    return folder(str(root), **{"labels": ["road", "water"], "target": LABELS, **options})


@pytest.mark.parametrize("on", [1, 255])
def test_targets_have_a_channel_for_each_label(tmp_path, on):
    truth = tree(tmp_path, on=on)
    data = built(tmp_path)
    assert data.labels and data.facts.classes == ("road", "water") and len(set(data.facts.palette)) == 2
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2, "val": 1}
    for split in data.splits.values():
        for index in range(len(split)):
            sample = split[index]
            assert sample.target.dtype == np.uint8 and sample.target.shape == (6, 8, 2)
            assert np.array_equal(sample.target, truth[sample.name])
            assert split.headers([index])[0][:2] == (6, 8)
            assert len(split.source(index).files) == 3
    assert data.settled["label_map"] == ({0: 0, 255: 1} if on == 255 else {0: 0, 1: 1, 255: 255})
    # The order of the channels is that of data.labels; a saved label map reads the masks in the same way.
    turned = built(tmp_path, labels=["water", "road"], label_map=data.settled["label_map"])
    assert np.array_equal(turned.splits["val"][0].target, data.splits["val"][0].target[..., ::-1])
    assert turned.splits["val"].source(0).reading != data.splits["val"].source(0).reading


def test_unknown_values_are_ignored(tmp_path):
    tree(tmp_path, on=1)
    write(tmp_path / "masks/road/val/c.png", np.full((6, 8), 255))
    target = built(tmp_path).splits["val"][0].target
    assert (target[..., 0] == 255).all() and (target[..., 1] <= 1).all()


def test_a_random_split_and_groups_go_by_the_image(tmp_path):
    tree(tmp_path, names=[f"{place}" for place in range(20)])
    data = built(tmp_path, val_fraction=0.25)
    names = [sorted(split[i].name for i in range(len(split))) for split in data.splits.values()]
    assert sorted([*names[0], *names[1]]) == sorted(map(str, range(20))) and min(map(len, names)) > 0


def test_what_is_missing_or_does_not_fit_is_named(tmp_path):
    tree(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no folder .*masks/river"):
        built(tmp_path, labels=["road", "river"])
    for wrong in (["../masks/road"], [".."], ["road", "road"], [], [""]):
        with pytest.raises(ConfigError, match=r"data\.labels is \["):
            built(tmp_path, labels=wrong)
    with pytest.raises(ConfigError, match=r"needs task=multilabel"):
        built(tmp_path, target=CLASSES)
    with pytest.raises(ConfigError, match=r"data\.labels is missing"):
        built(tmp_path, labels=None)
    with pytest.raises(ConfigError, match=r"data\.labels and data\.classes exclude each other"):
        built(tmp_path, classes=["a", "b"])
    with pytest.raises(ConfigError, match="masks apart from the images"):
        built(tmp_path, images="masks", masks="masks")

    write(tmp_path / "masks/water/val/c.png", np.zeros((6, 9)))
    split = built(tmp_path).splits["val"]
    assert "masks/water/val/c.png is 6x9" in str(split.headers([0])[0])
    with pytest.raises(DataError, match=r"masks/water/val/c\.png is 6x9"):
        split[0]
    (tmp_path / "masks/water/val/c.png").unlink()
    with pytest.raises(DataError, match=r"images/val/c\.png has no mask of the label 'water'"):
        built(tmp_path)
    (tmp_path / "masks/road/val/c.png").unlink()
    with pytest.raises(DataError, match=r"1 image has no mask of the same name: .*images/val/c\.png"):
        built(tmp_path)
    write(tmp_path / "masks/water/val/c.png", np.zeros((6, 8)))
    (tmp_path / "images/val/c.png").unlink()
    with pytest.raises(DataError, match=r"mask"):
        built(tmp_path)
