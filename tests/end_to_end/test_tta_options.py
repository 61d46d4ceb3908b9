"""Test-time augmentation on the command line: the report of `evaluate`, and what `predict` writes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import main
from segtrain.data.shapes import shapes

SMALL = ("data.size=48", "data.num_train=4", "data.num_val=3", "augmentation=none", "trainer.steps=2")
QUICK = ("device=cpu", "threads=1", "evaluate.workers=0")
VIEWS = ("tta=[flip,rotate,scale]", "tta.rotate.angles=[10]", "tta.scale.factors=[0.75]")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with outputs/unet and outputs/strided, whose output stride can be chosen, and photos/."""
    folder = tmp_path_factory.mktemp("views")
    train = ("train", *SMALL, *QUICK, "loader.batch_size=2", "loader.workers=0")
    strided = ("model=deeplabv3", "model.encoder=test_resnet", "model.weights=none")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*train, "model=unet", "model.widths=[4,8]", "name=unet"]) == 0
        assert main([*train, *strided, "name=strided"]) == 0
    split = shapes(size=48, num_train=4, num_val=3).splits["val"]
    (folder / "photos").mkdir()
    for index in range(2):
        Image.fromarray(split[index].image[:40]).save(folder / "photos" / f"{index}.png")
    return folder


@pytest.fixture(autouse=True)
def there(place, monkeypatch):
    monkeypatch.chdir(place)


def test_the_report_has_a_row_for_each_choice_of_views(capsys):
    report = ("evaluate.tta_report=true", "output=scores/all")
    assert main(["evaluate", "run=outputs/unet", *QUICK, *VIEWS, *report]) == 0
    printed = capsys.readouterr().out.splitlines()
    rows = json.loads(Path("scores/all/scores.json").read_text())["tta_report"]
    assert [list(row["tta"]) for row in rows] == [
        [], ["flip"], ["rotate"], ["scale"], ["flip", "rotate", "scale"]
    ]  # fmt: skip
    assert rows[2]["tta"] == {"rotate": {"angles": [10.0], "expand": False}}
    assert all(row["seconds_per_image"] > 0 and row["output_stride"] is None for row in rows)
    assert rows[0]["gain"] is None
    assert all(row["gain"] == pytest.approx(row["miou"] - rows[0]["miou"]) for row in rows[1:])
    (head,) = (index for index, line in enumerate(printed) if line.startswith("tta "))
    assert printed[head].split() == ["tta", "mIoU", "gain", "seconds", "per", "image"]
    assert printed[head + 5].split()[:2] == ["flip+rotate+scale", f"{rows[4]['miou']:.4f}"]
    # Each row is what an evaluation with these views gives.
    for place, words in ((0, ["tta=none"]), (1, ["tta=flip"]), (4, VIEWS)):
        assert main(["evaluate", "run=outputs/unet", *QUICK, *words, "output=scores/one"]) == 0
        assert json.loads(Path("scores/one/scores.json").read_text())["miou"] == rows[place]["miou"]


def test_the_report_has_the_other_output_stride():
    words = ("tta=flip", "evaluate.tta_report=true", "output=scores/strided")
    assert main(["evaluate", "run=outputs/strided", *QUICK, *words]) == 0
    rows = json.loads(Path("scores/strided/scores.json").read_text())["tta_report"]
    assert [(list(row["tta"]), row["output_stride"]) for row in rows] == [
        ([], 16), (["flip"], 16), ([], 8), (["flip"], 8)
    ]  # fmt: skip
    at_8 = ("tta=none", "model.output_stride=8", "output=scores/8")
    assert main(["evaluate", "run=outputs/strided", *QUICK, *at_8]) == 0
    assert json.loads(Path("scores/8/scores.json").read_text())["miou"] == rows[2]["miou"]


def test_predict_writes_where_views_disagree(capsys):
    words = ("input=photos", "device=cpu", "threads=1", *VIEWS)
    assert main(["predict", "run=outputs/unet", *words, "output=out", "disagreement=true"]) == 0
    assert "(classes/, colours/, overlay/, disagreement/, disagreement_colours/)" in capsys.readouterr().out
    values = np.array(Image.open("out/disagreement/0.png"))
    colours = np.array(Image.open("out/disagreement_colours/0.png"))
    assert values.shape == (40, 48) and values.dtype == np.uint8 and colours.shape == (40, 48, 3)
    assert 0 < values.mean() < 128
    assert colours[values == values.min()].mean() < colours[values == values.max()].mean()
    # The masks are those without it, and the probabilities are written beside it.
    assert main(["predict", "run=outputs/unet", *words, "output=plain", "probabilities=true"]) == 0
    assert not any(name in capsys.readouterr().out for name in ("disagreement", "disagreement_colours"))
    both = ("output=both", "disagreement=true", "probabilities=true")
    assert main(["predict", "run=outputs/unet", *words, *both]) == 0
    for index in range(2):
        masks = [np.array(Image.open(f"{one}/classes/{index}.png")) for one in ("out", "plain", "both")]
        assert (masks[0] == masks[1]).all() and (masks[0] == masks[2]).all()
        probabilities = [np.load(f"{one}/probabilities/{index}.npy") for one in ("plain", "both")]
        assert probabilities[1].shape == (5, 40, 48)
        np.testing.assert_allclose(*probabilities, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("predict", "input=photos", "output=o", "disagreement=true"),
            "disagreement=true compares views, and",
        ),
        (
            ("evaluate", "evaluate.tta_report=true"),
            "evaluate.tta_report=true compares views, and tta names none",
        ),
    ],
)
def test_without_views_there_is_nothing_to_compare(words, message, capsys):
    command, *rest = words
    assert main([command, "run=outputs/unet", "device=cpu", *rest]) == 2
    assert message in capsys.readouterr().err
