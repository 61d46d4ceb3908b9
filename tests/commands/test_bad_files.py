"""Files that cannot be used, from the command line: skipped in training where that is asked for, errors in
validation before the first step."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

QUICK = ("device=cpu", "threads=1", "model.widths=[4,8]", "augmentation=none", "loader.workers=0")
NETWORKS = {
    "unet": ("model=unet", *QUICK, "loader.batch_size=2", "evaluate.workers=0", "trainer.steps=15"),
    "classical": (
        "model=classical",
        "model.num_regions=4",
        "model.textons=4",
        "model.trees=2",
        "model.smoothing=none",
        "loader.workers=0",
        "evaluate.workers=0",
        "device=cpu",
    ),
}


@pytest.fixture
def files(tmp_path, write_pair):
    """train/0 … 29 and val/0, 1 of 16×16 pixels, in files/images and files/masks: the path to an image of a
    given name."""
    rng = np.random.default_rng(0)
    for name in [*(f"train/{number}" for number in range(30)), "val/0", "val/1"]:
        mask = np.repeat([0, 1], 8)[None].repeat(16, 0).astype(np.uint8)
        image = rng.integers(0, 90, (16, 16, 3)) + 150 * mask[..., None]
        write_pair(tmp_path / "files", name, image.astype(np.uint8), mask)
    return lambda name, kind="images": tmp_path / "files" / kind / f"{name}.png"


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10])


def as_16_bit(path: Path) -> None:
    Image.fromarray(np.full((16, 16), 40_000, np.uint16)).save(path)


def train(segtrain, network, *words):
    if network == "classical":
        pytest.importorskip("skimage")
        pytest.importorskip("sklearn")
    return segtrain("train", *NETWORKS[network], "data=folder", "data.root=files", "name=run", *words)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("kind", "classes"), [("images", "[a,b]"), ("masks", "null")])
def test_an_unreadable_header_is_skipped(segtrain, files, network, kind, classes):
    bad = files("train/0", kind)
    damage(bad)
    result = train(segtrain, network, "loader.on_bad=skip", f"data.classes={classes}")
    assert result.code == 0, result.err
    assert str(bad.relative_to(bad.parents[3])) in result.err and "skipped: " in result.err
    result = train(segtrain, network, "loader.on_bad=error", f"data.classes={classes}", "name=other")
    result.refused(f"files/{kind}/train/0.png", code=3)


@pytest.mark.parametrize("network", NETWORKS)
def test_another_depth_is_skipped(segtrain, files, network):
    as_16_bit(files("train/0"))
    result = train(segtrain, network, "loader.on_bad=skip")
    assert result.code == 0 and "skipped: files/images/train/0.png has uint16 pixels" in result.err, (
        result.err
    )
    result = train(segtrain, network, "name=other")
    result.refused("files/images/train/0.png has uint16 pixels", code=3)


def test_class_frequencies_and_the_memory_format_do_without_it(segtrain, files):
    damage(files("train/0", "masks"))
    words = ("loss.class_weights=median", "trainer.memory_format=auto")
    assert train(segtrain, "unet", "loader.on_bad=skip", *words).code == 0


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("harm", [damage, as_16_bit])
def test_validation_images_are_checked_before_the_first_step(segtrain, files, network, harm):
    harm(files("val/1"))
    result = train(segtrain, network, "loader.on_bad=skip")
    result.refused("files/images/val/1.png", code=3)
    assert "plan" not in result.out
