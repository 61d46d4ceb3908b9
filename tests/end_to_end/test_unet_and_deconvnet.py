"""U-Net without padding and DeconvNet from training to masks; crops that they cannot take are refused before
anything runs."""

import numpy as np
import pytest
from PIL import Image

TINY = (
    "model=unet_original",
    "model.width=0.05",
    "data.size=100",
    "data.num_train=4",
    "data.num_val=2",
    "device=cpu",
)
QUICK = (
    "trainer.epochs=null",
    "trainer.steps=2",
    "loader.batch_size=2",
    "loader.workers=0",
    "evaluate.workers=0",
)


@pytest.mark.parametrize(
    ("size", "nearest"), [("null", "next to 100: 188 and 204"), ("200", "next to 200: 188 and 204")]
)
def test_crops_that_do_not_fit_are_refused(segtrain, size, nearest):
    segtrain("train", *TINY, *QUICK, "augmentation=warp", f"augmentation.warp.size={size}").refused(
        nearest, "augmentation.warp.size"
    )


def test_from_training_to_masks(segtrain, tmp_path):
    crops = ("augmentation=warp", "augmentation.warp.size=188", "loss.border_weight=10")
    made = segtrain("train", *TINY, *QUICK, *crops, "name=run")
    assert made.code == 0, made.err
    image = np.random.default_rng(0).integers(0, 256, (70, 131, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    made = segtrain("predict", "run=outputs/run", "input=image.png", "output=masks", "device=cpu")
    assert made.code == 0, made.err
    assert Image.open(tmp_path / "masks" / "classes" / "image.png").size == (131, 70)


def test_deconvnet_learns_from_crops_around_objects(segtrain):
    tiny = ("model=deconvnet", "model.weights=none", "model.width=0.05", "model.fc_width=16", *TINY[2:])
    crops = ("augmentation=object_crops", "trainer.recompute_batch_norm=1", "trainer.accumulate=1")
    made = segtrain("train", *tiny, *QUICK, *crops, "name=run")
    assert made.code == 0, made.err
    # One crop at a time leaves batch normalisation a single value per channel of fc6.
    segtrain("train", *tiny, *QUICK, *crops, "trainer.accumulate=2", "name=other").refused(
        "batch normalisation encoder.fc6"
    )
