"""Masks of folders of images: what is wrong with one, the others do not pay for."""

import numpy as np
import pytest
from PIL import Image

from segtrain import cli

TINY = ["data.num_train=4", "data.num_val=2", "data.size=48", "augmentation.warp.size=48", "loader.batch_size=2", "loader.workers=0"]
TINY += ["evaluate.workers=0", "trainer.steps=1", "device=cpu", "threads=1"]


def test_an_image_that_the_network_cannot_take_is_named_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "model=unet_padded", "model.width=0.05", *TINY, "name=run"]) == 0
    (tmp_path / "photos").mkdir()
    for name, size in (("a", (40, 33)), ("b", (3, 50)), ("c", (16, 16))):
        Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save(tmp_path / "photos" / f"{name}.png")
    capsys.readouterr()
    assert cli.main(["predict", "run=outputs/run", "input=photos", "output=masks", "device=cpu"]) == 3
    printed = capsys.readouterr().err
    assert "left out: photos/b.png: the network gets images of 50x3 px" in printed and "from 16 px" in printed
    sizes = {file.name: Image.open(file).size for file in (tmp_path / "masks" / "classes").iterdir()}
    assert sizes == {"a.png": (40, 33), "c.png": (16, 16)}
    assert cli.main(["predict", "run=outputs/run", "input=photos/b.png", "output=masks", "device=cpu"]) == 3
    assert "none of the 1 images could be used" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (47, 33)])
def test_networks_that_interpolate_take_any_image(tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "model.widths=[4,8]", *TINY, "name=run"]) == 0
    Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save("photo.png")
    assert cli.main(["predict", "run=outputs/run", "input=photo.png", "output=masks", "device=cpu"]) == 0
    assert Image.open("masks/classes/photo.png").size == size
