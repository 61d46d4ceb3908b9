"""`load(run)(image)`: the answer of `segtrain predict`, whatever the image comes as."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain import checkpoint as checkpoints
from segtrain.cli.main import main
from segtrain.data.shapes import shapes
from segtrain.errors import ConfigError, DataError
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


@pytest.fixture(scope="module")
def mask(place):
    return load(place / "outputs" / "other", device="cpu")


def picture(channels: int, dtype=np.uint8) -> np.ndarray:
    high = np.iinfo(dtype).max
    return np.random.default_rng(2).integers(0, high, (21, 34, channels), dtype, endpoint=True)


def pillow(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(picture(1, np.uint16)[..., 0])
    if mode == "LA":
        return Image.fromarray(picture(2), mode)
    return Image.fromarray(picture(3)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "I;16", "CMYK"])
@pytest.mark.parametrize("kind", ["made", "opened", "loaded"])
def test_a_pil_image_of_any_mode_has_the_mask_of_its_file(mask, tmp_path, mode, kind):
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image = pillow(mode)
    image.save(file)
    if kind != "made":
        image = Image.open(file)
    if kind == "loaded":
        image.load()
    assert image.mode == mode
    torch.testing.assert_close(mask.probabilities(image), mask.probabilities(file), rtol=0, atol=0)
    assert np.array_equal(mask(image), mask(str(file)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_image_is_turned_as_exif_says(mask, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(3)).save(tmp_path / "a.png", exif=exif)
    image = Image.open(tmp_path / "a.png")
    classes = mask(image)
    assert classes.shape == ((34, 21) if orientation > 4 else (21, 34))
    assert np.array_equal(classes, mask(tmp_path / "a.png"))


@pytest.mark.parametrize("kind", ["opened", "loaded", "tiff"])
def test_16_bit_colour_that_pil_cut_is_refused(mask, tmp_path, kind):
    import cv2

    file = tmp_path / ("a.tif" if kind == "tiff" else "a.png")
    cv2.imwrite(str(file), picture(3, np.uint16))
    image = Image.open(file)
    if kind == "loaded":
        image.load()
    with pytest.raises(ConfigError, match=r"16 bits a channel, of which PIL keeps 8.*give the path"):
        mask(image)
    assert mask(file).shape == (21, 34)


def test_a_damaged_pil_image_is_named(mask, tmp_path):
    Image.fromarray(picture(3)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    with pytest.raises(DataError, match="the image cannot be decoded"):
        mask(Image.open(tmp_path / "a.png"))


def test_arrays_of_all_scales_say_the_same(mask):
    image = picture(3)
    expected = mask.probabilities(image)
    for other in (
        image.astype(np.uint16) * 257,
        (image.astype(np.uint16) * 257).astype(">u2"),
        image.astype(np.float32) / 255,
        image / 255,
        np.asfortranarray(image),
        torch.from_numpy(image),
    ):
        torch.testing.assert_close(mask.probabilities(other), expected, rtol=0, atol=1e-5)
    grey = picture(1)[..., 0]
    assert np.array_equal(mask(grey), mask(Image.fromarray(grey)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((8, 9, 3), 255.0), "values from 255 to 255; allowed for floats: 0 to 1"),
        (np.full((8, 9, 3), -0.1, np.float32), "values from -0.1 to -0.1; allowed for floats: 0 to 1"),
        (np.full((8, 9, 3), np.nan, np.float32), "values from nan to nan; allowed for floats: 0 to 1"),
        (np.array([[[0.0, 1.0, np.inf]]]), "values from 0 to inf; allowed for floats: 0 to 1"),
        (np.zeros((8, 9, 3), bool), "pixels of bool; allowed: uint8, uint16, float32, float64"),
        (np.zeros((8, 9, 3), np.int32), "pixels of int32; allowed: uint8"),
        (np.zeros((8, 9, 3), np.complex64), "pixels of complex64; allowed: uint8"),
        (np.zeros((8, 9, 4), np.uint8), r"shape \(8, 9, 4\); the network wants height, width, 3"),
        (np.zeros((3, 8, 9), np.uint8), r"shape \(3, 8, 9\)"),
        (np.zeros((0, 9, 3), np.uint8), "none of them 0"),
        ([np.zeros((8, 9, 3), np.uint8)], r"of type list; allowed: a path.*; several go to batch\(images\)"),
        (torch.zeros(8, 9, 3, requires_grad=True), "the image cannot become an array: .*requires grad"),
        (None, "of type NoneType; allowed: a path, a PIL image or an array$"),
    ],
)
def test_what_would_be_misread_is_refused_in_one_line(mask, image, message):
    with pytest.raises(ConfigError, match=message) as error:
        mask(image)
    assert "\n" not in str(error.value)


def test_a_batch_goes_through_the_network_together(place, monkeypatch):
    mask = load(place / "outputs" / "other", device="cpu")
    images = [picture(3)[:20, :20], picture(3), picture(3)[:20, 10:30], "photos/0.png", picture(3) / 255]
    singly = [mask(image) for image in images]
    predict, shapes_seen = mask._predict.strips, []
    monkeypatch.setattr(mask._predict, "strips", lambda x: shapes_seen.append(tuple(x.shape)) or predict(x))
    together = mask.batch(iter(images))
    assert sorted(shapes_seen) == [(1, 3, 21, 34), (1, 3, 21, 34), (1, 3, 48, 48), (2, 3, 20, 20)]
    assert [one.shape for one in together] == [one.shape for one in singly]
    assert all((one == other).mean() > 0.99 for one, other in zip(together, singly, strict=True))
    shapes_seen.clear()
    mask.batch([picture(3)] * 5, size=2)
    assert [shape[0] for shape in shapes_seen] == [2, 2, 1] and mask.batch([]) == []


def test_random_states_and_modes_are_left_alone(place):
    import random

    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    before = states()
    with torch.enable_grad():
        mask = load("outputs/run", device="cpu")
        for _ in mask.strips(picture(3)):
            assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        mask.batch([picture(3)])
        assert torch.is_grad_enabled()
    with torch.no_grad():
        mask(picture(3))
        assert not torch.is_grad_enabled()
    assert states() == before


def test_the_package_says_that_it_is_typed():
    import importlib.resources

    assert importlib.resources.files("segtrain").joinpath("py.typed").is_file()
