"""A trained network run in other ways than it was trained: at another output stride, with boxes, a second
network, a CRF."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from torch import nn

from segtrain.checkpoint import reading
from segtrain.checkpoint.format import describe
from segtrain.checkpoint.reading import read
from segtrain.checkpoint.restore import build_from
from segtrain.cli.main import main
from segtrain.commands.parts import build_parts
from segtrain.commands.scoring import scoring_of
from segtrain.data.shapes import shapes
from segtrain.errors import ConfigError
from segtrain.model.network import MEMORY_FORMATS
from segtrain.predictor.mask import load
from segtrain.settings import PredictorSettings

DATA = ("data.size=64", "data.num_train=4", "data.num_val=2", "data.objects=3", "device=cpu", "threads=1")
STEPS = (
    "trainer.steps=2",
    "loader.batch_size=2",
    "loader.workers=0",
    "evaluate.workers=0",
    "augmentation=light",
)
SMALL = (
    "model.encoder=resnet18",
    "model.weights=none",
    "model.aspp_width=8",
    "model.low_level_width=8",
    "model.decoder_width=8",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the runs outputs/os16 and outputs/rates, which was given its rates, and outputs/unet."""
    folder = tmp_path_factory.mktemp("other")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "model=deeplabv3plus", *SMALL, *DATA, *STEPS, "name=os16"]) == 0
        assert (
            main(["train", "model=deeplabv3plus", *SMALL, *DATA, *STEPS, "name=rates", "model.rates=[2,4]"])
            == 0
        )
        assert main(["train", "model.widths=[4,8]", *DATA, *STEPS, "name=unet"]) == 0
    return folder


@pytest.fixture
def segtrain(place, segtrain, monkeypatch):
    monkeypatch.chdir(place)
    return segtrain


def evaluated(segtrain, *words, run="os16"):
    """scores.json, and its folder's name."""
    result = segtrain(
        "evaluate", f"run=outputs/{run}", "evaluate.workers=0", "device=cpu", "threads=1", *words
    )
    assert result.code == 0, result.err
    path = result.out.split("written   ")[1].split(",")[0].strip()
    with open(path) as file:
        return json.load(file), path.split("/")[-2]


def dilations(net: nn.Module) -> list[int]:
    return [conv.dilation[0] for block in net.encoder.layer4 for conv in (block.conv1, block.conv2)]


def rates(net: nn.Module) -> list[int]:
    return [m.dilation[0] for m in net.aspp.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


@pytest.mark.parametrize(
    ("run", "before", "after"), [("os16", [6, 12, 18], [12, 24, 36]), ("rates", [2, 4], [4, 8])]
)
def test_another_output_stride_changes_dilations_and_no_tensor(place, run, before, after):
    found = read(place / "outputs" / run)
    plain, other = build_from(found)[0], build_from(found, {"output_stride": 8})[0]
    assert (dilations(plain), rates(plain)) == ([1, 2, 2, 2], before)
    assert (dilations(other), rates(other)) == ([2, 4, 4, 4], after)
    old, new = plain.state_dict(), other.state_dict()
    assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)
    assert not other.training and other.encoder(torch.zeros(1, 3, 64, 64))[-1].shape[-1] == 8


@pytest.mark.parametrize("name", ["contiguous", "channels_last"])
def test_the_memory_format_is_that_of_the_training(place, name):
    found = read(place / "outputs" / "os16")
    found.description["config"]["trainer"]["memory_format"] = name
    for options in ({}, {"output_stride": 8}):
        net = build_from(found, options)[0]
        weight = max(net.parameters(), key=lambda one: one.numel() if one.ndim == 4 else 0)
        assert weight.is_contiguous(memory_format=MEMORY_FORMATS[name])


def test_scores_at_another_output_stride(segtrain):
    plain, where = evaluated(segtrain)
    assert (plain["protocol"]["output_stride"], where) == (16, "val-2")
    other, where = evaluated(segtrain, "model.output_stride=8")
    assert (other["protocol"]["output_stride"], where) == (8, "val-2-2") and other["protocol"]["model"][
        "output_stride"
    ] == 8
    assert other["iou"] != plain["iou"]
    other, _ = evaluated(segtrain, "model.output_stride=8", run="rates")
    assert other["protocol"]["model"]["rates"] == [4, 8]


def test_rates_may_change_alone(place, segtrain):
    net = build_from(read(place / "outputs" / "os16"), {"rates": [1, 2, 3], "dropout": 0.3})[0]
    assert (dilations(net), rates(net), net.aspp.dropout.p) == ([1, 2, 2, 2], [1, 2, 3], 0.3)
    scores, where = evaluated(segtrain, "model.rates=[1,2,3]")
    assert where.startswith("val-2-")
    assert scores["protocol"]["model"]["rates"] == [1, 2, 3]
    segtrain("evaluate", "run=outputs/os16", "model.rates=[1,2,3]", "model.output_stride=8").refused(
        "model.rates follows model.output_stride=8; set only one of them"
    )


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        (
            "model.encoder=resnet34",
            (
                "tensors differ",
                "trained with model.encoder=resnet18",
                "train a new run with model.encoder=resnet34",
            ),
        ),
        ("model.aspp_width=16", ("aspp", "trained with model.aspp_width=8")),
        ("model.rates=[1,2]", ("tensors differ", "model.rates=null")),
        (
            "model.weights=imagenet",
            ("model.weights=imagenet cannot change here", "trained with model.weights=none"),
        ),
        ("model=unet", ("model=unet cannot change here", "deeplabv3plus")),
        ("model.output_stride=4", ("model.output_stride is 4", "8, 16, 32")),
        ("model.encodr=resnet34", ("model.encodr", "did you mean 'encoder'")),
    ],
)
def test_what_changes_weights_is_refused(segtrain, word, parts):
    segtrain("evaluate", "run=outputs/os16", "device=cpu", word).refused(*parts)


def test_a_network_without_an_output_stride_says_so(segtrain):
    segtrain("evaluate", "run=outputs/unet", "device=cpu", "model.output_stride=8").refused(
        "model.output_stride is not an option of", "unet"
    )


def picture():
    return shapes(size=64, num_train=1, num_val=1, objects=3).splits["val"][0].image


def test_python_gives_what_predict_writes_at_another_output_stride(place, segtrain):
    from PIL import Image

    Image.fromarray(picture()).save(place / "photo.png")
    words = (
        "input=photo.png",
        "output=out",
        "model.output_stride=8",
        "predictor.crf=deeplab",
        "predictor.crf_solver=torch",
    )
    assert segtrain("predict", "run=outputs/os16", *words, "device=cpu", "threads=1").code == 0
    written = np.asarray(Image.open(place / "out" / "classes" / "photo.png"))
    settings = PredictorSettings(crf="deeplab", crf_solver="torch")
    mask = load(
        place / "outputs" / "os16", device="cpu", settings=settings, model_options={"output_stride": 8}
    )
    assert np.array_equal(mask(picture()), written)
    with pytest.raises(ConfigError, match=r"model.name=unet cannot change"):
        load(place / "outputs" / "os16", device="cpu", model_options={"name": "unet"})


def test_scores_say_that_boxes_a_crf_and_a_second_network_were_used(segtrain):
    words = (
        "predictor.boxes=grid",
        "predictor.box_input=64",
        "predictor.crf=pydensecrf",
        "predictor.crf_solver=torch",
    )
    scores, where = evaluated(
        segtrain, *words, "predictor.crf_window=5", "predictor.ensemble=outputs/unet", "tta=flip"
    )
    assert where.startswith("val-2-")
    protocol = scores["protocol"]
    assert protocol["boxes"] == {"kind": "grid", "sides": None, "input": 64}
    assert protocol["crf"] == {"preset": "pydensecrf", "solver": "torch", "window": 5}
    assert protocol["ensemble"] == {"runs": {"outputs/unet": 2}, "merge": "product"}
    plain, _ = evaluated(segtrain)
    assert {plain["protocol"][key] for key in ("boxes", "crf", "ensemble")} == {None}


def test_the_mean_of_a_network_with_itself_is_itself(place):
    run = str(place / "outputs" / "unet")
    both = load(run, device="cpu", settings=PredictorSettings(ensemble=run, ensemble_merge="mean"))
    torch.testing.assert_close(
        both.probabilities(picture()), load(run, device="cpu").probabilities(picture())
    )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("predictor.ensemble=nowhere",), ("predictor.ensemble=nowhere", "does not exist")),
        (("predictor.boxes=grid", "predictor.box_sides=[64]"), ("predictor.box_sides[0] is 64", "from 112")),
        (("predictor.crf=deplab",), ("predictor.crf is 'deplab'", "deeplab")),
        (
            ("predictor.crf=deeplab", "predictor.crf_window=4"),
            ("predictor.crf_window is 4; allowed: an odd integer from 3",),
        ),
    ],
)
def test_mistakes_in_the_predictor_are_named(segtrain, words, parts):
    segtrain("evaluate", "run=outputs/unet", "evaluate.workers=0", "device=cpu", *words).refused(*parts)


def test_a_second_network_with_other_classes_is_refused(place, segtrain, monkeypatch):
    facts = read(place / "outputs" / "unet").description["facts"]
    other = {**facts, "classes": [*facts["classes"][:-1], "snow"]}
    monkeypatch.setattr(
        reading,
        "describe",
        lambda path: {**describe(path), "facts": other} if "unet" in str(path) else describe(path),
    )
    parts = ("predictor.ensemble=outputs/unet", "snow", "use a run with the same")
    words = ("evaluate.workers=0", "device=cpu", "predictor.ensemble=outputs/unet")
    segtrain("evaluate", "run=outputs/os16", *words).refused(*parts)
    segtrain("train", *DATA, *words, "dry_run=true").refused(*parts)


@pytest.mark.parametrize("words", [("dry_run=true",), ("name=never",)])
@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        (
            ("predictor.crf=deeplab", "predictor.crf_solver=pydensecrf"),
            ("predictor.crf_solver=pydensecrf needs the package",),
        ),
        (("predictor.ensemble=outputs/nope",), ("predictor.ensemble=outputs/nope does not exist",)),
        (("predictor.boxes=grid", "predictor.box_sides=[50]"), ("predictor.box_sides[0] is 50", "from 112")),
        (
            ("model=unet_original", "model.width=0.05", "predictor.tile=200"),
            ("predictor.tile is 200", "204, 220"),
        ),
        (
            ("model=unet_padded", "model.width=0.05", "predictor.tile=8"),
            ("predictor.tile is 8", "from 16 px"),
        ),
    ],
)
def test_mistakes_in_the_predictor_are_named_before_the_training(
    place, segtrain, monkeypatch, words, wrong, parts
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *package: None if name == "pydensecrf" else find(name, *package),
    )
    result = segtrain("train", *DATA, *STEPS, "augmentation.warp.size=188", *wrong, *words)
    result.refused(*parts)
    assert "plan" not in result.out and not (place / "outputs" / "never").exists()


def test_a_second_network_takes_no_random_numbers_from_the_training(place):
    config = {
        "task": {"name": "semantic"},
        "data": {"name": "shapes"},
        "model": {"name": "unet", "widths": [4, 8]},
        "tta": {},
    }
    settings = {
        "predictor": {"ensemble": str(place / "outputs" / "unet")},
        "evaluate": {},
        "init": None,
        "metric": {},
        "loader": {"on_bad": "error"},
        "sampler": {},
    }
    settings["trainer"] = {"freeze_batch_norm": False}
    parts = build_parts({**config, **settings}, None)
    before = torch.get_rng_state()
    scoring = scoring_of({**config, **settings}, parts.task, parts.facts)
    scoring.predictor(parts.model, torch.device("cpu"))
    assert scoring.inference.protocol(parts.model)["ensemble"]["runs"] == {str(place / "outputs" / "unet"): 2}
    assert torch.equal(torch.get_rng_state(), before)
