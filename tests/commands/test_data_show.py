"""`segtrain data show` draws what a training with the same seed and augmentation sees."""

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.composition import composed
from segtrain.cli.lazy import check
from segtrain.commands.data_show import data_show
from segtrain.commands.parts import build_parts
from segtrain.commands.runtime import learned_by
from segtrain.loader.loader import training_batches
from segtrain.run.stop import Stop
from segtrain.settings import Loader

SHAPES = ("data.size=48", "data.num_train=5", "data.num_val=2", "data.objects=3")
STRONG = ("augmentation=[warp,colour]", "augmentation.warp.size=32", "augmentation.warp.rotate=20")


def shown(tmp_path, *words):
    output = f"output={tmp_path / 'sheet.png'}"
    return data_show(check("data show", composed("data show", [*SHAPES, *words, output], None)[0]), Stop())


@pytest.mark.parametrize(
    "augmentation", [(), STRONG, (*STRONG, "sampler.class_share=0.7")], ids=["default", "strong", "by class"]
)
def test_the_samples_are_those_of_the_training(tmp_path, augmentation):
    """Of positions 3 … 8, over the end of the first epoch."""
    rows = shown(tmp_path, *augmentation, "seed=7", "position=3", "num=6")
    words = [*SHAPES, *augmentation, "model.widths=[4,8]", "seed=7"]
    config = check("train", composed("train", words, None)[0])
    parts = build_parts(config, None)
    split = parts.data.splits["train"]
    learned = learned_by(config, parts, split)
    ops, draws = learned.ops, learned.draws
    loader = Loader(batch_size=6, workers=0)
    with training_batches(split, ops, loader, seed=7, start=3, draws=draws) as batches:
        batch = next(batches)
    for row, image, target, name in zip(rows, batch.images, batch.targets, batch.names, strict=True):
        stored, augmented = row
        assert np.array_equal(augmented.image, image.permute(1, 2, 0)) and augmented.name == name
        assert np.array_equal(augmented.target, target)
        index = int(name.rpartition("-")[2])
        assert np.array_equal(stored.image, split[index].image)
        assert np.array_equal(stored.target, split[index].target)


def test_the_picture(segtrain, tmp_path):
    result = segtrain("data", "show", *SHAPES, "augmentation=none", "num=2", "output=below/one.png")
    assert result.code == 0 and result.out.splitlines()[-1] == "written   below/one.png"
    assert result.out.splitlines()[0].split() == ["position", "index", "height", "x", "width", "name"]
    one = np.asarray(Image.open(tmp_path / "below" / "one.png"))
    result = segtrain("data", "show", *SHAPES, "num=2", "output=two.png", "split=val")
    assert "shapes-val-" in result.out and "48x48" in result.out
    two = np.asarray(Image.open(tmp_path / "two.png"))
    assert two.shape[1] > 1.9 * one.shape[1]
    # The legend names the colours of the classes and of pixels without a label.
    for colour in ((128, 0, 0), (0, 128, 0), (224, 224, 192)):
        assert (two[-30:] == colour).all(axis=-1).sum() > 50
    # Labels alone have the colours of the palette, those over the image do not; images are the same.
    segtrain("data", "show", *SHAPES, "num=2", "output=over.png", "split=val", "overlay=true")
    over = np.asarray(Image.open(tmp_path / "over.png"))
    assert over.shape == two.shape
    pictures = np.s_[60:-30]
    same = (over[pictures] == two[pictures]).all(axis=(0, 2))  # of each column of pixels
    quarters = [part.mean() for part in np.array_split(same, 4)]
    assert quarters[0] > 0.95 and quarters[2] > 0.95 and quarters[1] < 0.2 and quarters[3] < 0.2


def test_what_is_refused(segtrain, tmp_path):
    segtrain("data", "show", "output=a.jpg").refused("output is 'a.jpg'", "PNG")
    segtrain("data", "show", *SHAPES, "split=tset").refused("split=tset", "train, val, all")
    segtrain("data", "show", "num=0").refused("num is 0")
    segtrain("data", "show", "augmentation.warp.sise=3").refused("augmentation.warp.sise", "'size'")
    assert not (tmp_path / "sheet.png").exists()
