"""Masks of folders of images: what is wrong with one, the others do not pay for."""

import numpy as np
import pytest
from PIL import Image

from segtrain.cli import main as cli

TINY = [
    "data.num_train=4",
    "data.num_val=2",
    "data.size=48",
    "augmentation.warp.size=48",
    "loader.batch_size=2",
    "loader.workers=0",
]
TINY += ["evaluate.workers=0", "trainer.steps=1", "device=cpu", "threads=1"]


def test_an_image_that_the_network_cannot_take_is_named_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "model=unet_padded", "model.width=0.05", *TINY, "name=run"]) == 0
    (tmp_path / "photos").mkdir()
    for name, size in (("a", (40, 33)), ("b", (3, 50)), ("c", (16, 16))):
        Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save(tmp_path / "photos" / f"{name}.png")
    capsys.readouterr()
    assert cli.main(["predict", "run=outputs/run", "input=photos", "output=masks", "device=cpu"]) == 3
    summary, printed = capsys.readouterr()
    assert "written   2 masks to masks (classes/, colours/, overlay/); 1 left out" in summary
    assert "1 of 3 images has no mask (reasons above)" in printed
    assert "left out: photos/b.png: the network gets images of 50x3 px" in printed and "from 16 px" in printed
    sizes = {file.name: Image.open(file).size for file in (tmp_path / "masks" / "classes").iterdir()}
    assert sizes == {"a.png": (40, 33), "c.png": (16, 16)}
    assert cli.main(["predict", "run=outputs/run", "input=photos/b.png", "output=masks", "device=cpu"]) == 3
    assert "error: the image could not be used: photos/b.png: the network gets" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (47, 33)])
def test_networks_that_interpolate_take_any_image(tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "model.widths=[4,8]", *TINY, "name=run"]) == 0
    Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save("photo.png")
    assert cli.main(["predict", "run=outputs/run", "input=photo.png", "output=masks", "device=cpu"]) == 0
    assert Image.open("masks/classes/photo.png").size == size


@pytest.fixture
def run(tmp_path, monkeypatch):
    """outputs/run, and photos/a.png and photos/more/b.png beside it."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "model.widths=[4,8]", *TINY, "name=run"]) == 0
    for name in ("a", "more/b"):
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "output"),
    [("photos", "photos/masks"), ("photos", "photos/more"), ("photos/more/..", "photos/new/x")],
)
def test_results_below_the_images_are_not_predicted_in_turn(run, capsys, source, output):
    words = [
        "predict",
        "run=outputs/run",
        f"input={source}",
        f"output={output}",
        "probabilities=true",
        "device=cpu",
    ]
    for _ in range(2):
        capsys.readouterr()
        assert cli.main(words) == 0
        assert (
            f"written   2 masks to {output} (classes/, colours/, overlay/, probabilities/)"
            in capsys.readouterr().out
        )
    classes = run / output / "classes"
    assert sorted(str(file.relative_to(classes)) for file in classes.rglob("*.png")) == [
        "a.png",
        "more/b.png",
    ]


def test_results_among_the_images_are_refused(run, capsys):
    for output in ("photos", "./photos/more/.."):
        assert cli.main(["predict", "run=outputs/run", "input=photos", f"output={output}", "device=cpu"]) == 2
        assert f"output={output} is the folder of the images" in capsys.readouterr().err
    assert sorted(path.name for path in (run / "photos").iterdir()) == ["a.png", "more"]
    assert cli.main(["predict", "run=outputs/run", "input=photos/a.png", "output=photos", "device=cpu"]) == 0
    assert "written   1 mask to photos" in capsys.readouterr().out
    assert (
        cli.main(["predict", "run=outputs/run", "input=photos/overlay", "output=photos", "device=cpu"]) == 2
    )
    assert "input=photos/overlay holds no image but results of output=photos" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["input", "output"])
def test_an_empty_path_is_not_the_current_folder(run, capsys, key):
    words = {"run": "outputs/run", "input": "photos", "output": "masks", key: ""}
    assert cli.main(["predict", *(f"{name}={value}" for name, value in words.items())]) == 2
    assert f"{key} is empty (an unset variable of the shell?); give" in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir()) == ["outputs", "photos"]
