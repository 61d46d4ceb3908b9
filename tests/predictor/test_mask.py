"""`load(run)(image)`: the answer of `segtrain predict`, whatever the image comes as."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain import checkpoint as checkpoints
from segtrain.cli.main import main
from segtrain.data.shapes import shapes
from segtrain.errors import ConfigError
from segtrain.predictor import load
from segtrain.settings import PredictorSettings

DATA = ("data.size=48", "data.num_train=4", "data.num_val=3", "augmentation.warp.size=48")
QUICK = ("loader.batch_size=2", "loader.workers=0", "evaluate.workers=0", "evaluate.batch_size=1")
SETTINGS = (
    "tta.flip.axes=[horizontal,vertical]",
    "predictor.tile=32",
    "predictor.overlap=0.25",
    "predictor.amp=bf16",
    "predictor.ensemble=outputs/other",
    "predictor.ensemble_merge=mean",
    "predictor.crf=deeplab",
    "predictor.crf_solver=torch",
    "predictor.crf_window=5",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with outputs/other, outputs/run, which is run in a way of its own, and photos/0.png … ."""
    folder = tmp_path_factory.mktemp("mask")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ("model.widths=[4,8]", *DATA, *QUICK, "trainer.steps=2", "device=cpu", "threads=1")
        assert main(["train", *words, "name=other", "seed=5"]) == 0
        assert main(["train", *words, "name=run", "tta=flip", *SETTINGS]) == 0
    (folder / "photos").mkdir()
    split = shapes(size=48, num_train=4, num_val=3).splits["val"]
    for index in range(3):
        Image.fromarray(split[index].image).save(folder / "photos" / f"{index}.png")
    return folder


@pytest.fixture(autouse=True)
def there(place, monkeypatch):
    monkeypatch.chdir(place)


def iou_of(masks) -> list[float | None]:
    """By class, over the validation split."""
    split = shapes(size=48, num_train=4, num_val=3).splits["val"]
    truth = np.stack([split[index].target for index in range(3)])
    found, known = np.stack(masks), truth != 255
    pairs = [((found == c) & known, truth == c) for c in range(5)]
    areas = [(int((a & b).sum()), int((a | b).sum())) for a, b in pairs]
    return [inner / union if union else None for inner, union in areas]


def test_validation_evaluate_predict_and_python_have_one_answer(place):
    words = ("run=outputs/run", "device=cpu", "threads=1")
    assert main(["evaluate", *words, "output=scores", "evaluate.workers=0"]) == 0
    assert main(["predict", *words, "input=photos", "output=out", "probabilities=true"]) == 0
    mask = load("outputs/run", device="cpu")
    masks = [mask(f"photos/{index}.png") for index in range(3)]
    for index, classes in enumerate(masks):
        assert np.array_equal(classes, np.asarray(Image.open(f"out/classes/{index}.png")))
        written = np.load(f"out/probabilities/{index}.npy")
        assert np.array_equal(mask.probabilities(f"photos/{index}.png")[0].half().numpy(), written)
    scores = json.loads((place / "scores" / "scores.json").read_text())
    validation = checkpoints.describe(checkpoints.find("outputs/run"))["scores"]
    assert list(scores["iou"].values()) == list(validation["iou"].values()) == iou_of(masks)
    assert scores["protocol"]["tta"] == {"flip": {"axes": ["horizontal", "vertical"]}}


@pytest.mark.parametrize(
    "change",
    [
        {"views": ()},
        {"settings": {"tile": None}},
        {"settings": {"amp": "none"}},
        {"settings": {"ensemble": None}},
        {"settings": {"crf": None}},
    ],
)
def test_each_of_them_matters_and_can_be_changed(change):
    photo = "photos/0.png"
    own = load("outputs/run", device="cpu").probabilities(photo)
    assert not torch.equal(load("outputs/run", device="cpu", **change).probabilities(photo), own)


def test_settings_and_views_in_place_of_the_saved_ones():
    photo = "photos/0.png"
    plain = load("outputs/run", device="cpu", settings=PredictorSettings(), views=())
    other = load("outputs/run", device="cpu", settings=PredictorSettings(), views="flip")
    both = load("outputs/run", device="cpu", settings=PredictorSettings(), views={"flip": {"axes": ["both"]}})
    found = [mask.probabilities(photo) for mask in (plain, other, both)]
    assert not any(torch.equal(a, b) for a, b in zip(found, [*found[1:], found[0]], strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"tyle": 3}}, r"predictor\.tyle is not an option of .*did you mean 'tile'"),
        ({"settings": {"tile": "large"}}, r"predictor\.tile is 'large'; allowed: "),
        ({"settings": {"crf_window": 4}}, r"predictor\.crf_window is 4; allowed: an odd integer from 3"),
        ({"settings": PredictorSettings(tile=-1)}, r"predictor\.tile is -1; allowed: an integer from 1"),
        ({"views": "flop"}, r"tta=flop does not exist \(did you mean 'flip'\?\)"),
        ({"views": {"flip": {"axes": ["up"]}}}, r"tta\.flip\.axes"),
    ],
)
def test_settings_are_checked_as_on_the_command_line(change, message):
    with pytest.raises(ConfigError, match=message):
        load("outputs/run", device="cpu", **change)
