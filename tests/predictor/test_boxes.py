"""Boxes and two networks: scores merged before they become probabilities."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segtrain.checkpoint.reading import Checkpoint
from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.predictor.boxes import box_sides, merged_over_boxes
from segtrain.predictor.ensemble import EnsembleMember, read_ensemble
from segtrain.predictor.predictor import predictor
from segtrain.sample import Facts, Normalisation, Output
from segtrain.settings import PredictorSettings

NORM = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


class Strided(Network):
    """Logits at stride 2 from a 3×3 neighbourhood."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x):
        return Output(self.conv(x), tuple(x.shape[-2:]))


def image(height=224, width=224):
    return torch.randint(
        0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def softmax(logits, images=None):
    return logits.softmax(1)


def test_one_box_that_is_the_image_gives_the_plain_scores_from_0_on():
    model = Strided()
    with torch.no_grad():
        plain = model(NORM(image())).upsampled()
    got = predictor(
        model, NORM, lambda logits, images: logits, PredictorSettings(boxes="grid", box_sides=(224,))
    )(image())
    assert torch.equal(got, plain.clamp_min(0)) and (plain < 0).any()
    got = predictor(model, NORM, softmax, PredictorSettings(boxes="grid", box_sides=(224,)))(image())
    torch.testing.assert_close(got, plain.clamp_min(0).softmax(1))


def test_the_largest_score_of_any_box_counts():
    """Against the same in one canvas a box, for an image that no box fits."""
    x = torch.randn(2, 3, 150, 260, generator=torch.Generator().manual_seed(2))
    seen = []

    def scores(box):
        seen.append(box)
        return box[:, :2] * 3

    got = merged_over_boxes(scores, (200, 120), 96)(x)
    canvases = [torch.zeros(2, 2, 150, 260)]
    for side, tops, lefts in ((200, [0], [0, 60]), (120, [0, 30], [0, 47, 93, 140])):
        for top in tops:
            for left in lefts:
                box = F.pad(x, (0, 200, 0, 200))[..., top : top + side, left : left + side]
                small = F.interpolate(box, size=(96, 96), mode="bilinear", antialias=True)
                large = F.interpolate(small[:, :2] * 3, size=(side, side), mode="bilinear")
                canvas = torch.full((2, 2, 350, 460), -1.0)
                canvas[..., top : top + side, left : left + side] = large
                canvases.append(canvas[..., :150, :260])
    assert len(seen) == 10 and all(box.shape == (2, 3, 96, 96) for box in seen)
    torch.testing.assert_close(got, torch.stack(canvases).amax(0))


@pytest.mark.parametrize(
    ("size", "wanted", "sides"),
    [
        ((500, 375), None, [500, 250, 125]),
        ((224, 223), None, [224, 112]),
        ((60, 80), None, [80]),
        ((500, 375), (112, 300, 900), [500, 300, 112]),
        ((300, 375), (400, 900), [375]),
    ],
)
def test_sides_of_boxes(size, wanted, sides):
    assert box_sides(*size, wanted) == sides


@pytest.mark.parametrize("sides", [(111, 300), ()])
@pytest.mark.parametrize("boxes", ["grid", None])
def test_boxes_that_show_nothing_are_refused_asked_for_or_not(sides, boxes):
    with pytest.raises(ConfigError, match=r"predictor.box_sides is \[.*allowed: integers from 112"):
        predictor(Strided(), NORM, softmax, PredictorSettings(boxes=boxes, box_sides=sides))


class LogProbabilities(Strided):
    log_probabilities = True


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"boxes": "grid"},
            r"predictor\.boxes=grid merges scores from 0 on, .* log-probabilities, none above 0; use predictor\.boxes=null",
        ),
        (
            {"ensemble": "other"},
            r"those of this network are log-probabilities.*; use predictor\.ensemble_merge=mean",
        ),
    ],
)
def test_log_probabilities_are_not_merged_from_0_on(settings, message):
    with pytest.raises(ConfigError, match=message):
        predictor(LogProbabilities(), NORM, softmax, PredictorSettings(**settings))
    for allowed in ({}, {"ensemble": "other", "ensemble_merge": "mean"}):
        predictor(LogProbabilities(), NORM, softmax, PredictorSettings(**allowed))


def test_a_second_network_of_log_probabilities_is_not_multiplied(monkeypatch):
    facts = Facts(("a", "b"), ((0, 0, 0),) * 2, normalisation=NORM)
    found = Checkpoint(
        Path("forest/checkpoints/1"), {"step": 1, "config": {"task": {"name": "semantic"}}}, {}
    )
    monkeypatch.setattr("segtrain.predictor.ensemble.read", lambda *words, **more: found)
    monkeypatch.setattr(
        "segtrain.predictor.ensemble.build_from", lambda checkpoint: (LogProbabilities(), facts)
    )
    with pytest.raises(
        ConfigError, match=r"those of predictor\.ensemble=forest are log-probabilities.*ensemble_merge=mean"
    ):
        read_ensemble(PredictorSettings(ensemble="forest"), torch.device("cpu"))
    mean = PredictorSettings(ensemble="forest", ensemble_merge="mean")
    assert read_ensemble(mean, torch.device("cpu"))[0].run == "forest"


class Large(Strided):
    tile_sides = (16, 1)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"tile": 8}, "tile"),
        ({"boxes": "grid", "box_input": 8}, "box_input"),
        ({"boxes": "grid", "tile": 8}, None),
    ],
)
def test_sides_that_the_network_does_not_take_are_named_by_their_key(settings, key):
    if key is None:  # boxes of a tile are resized before the network sees them
        predictor(Large(), NORM, softmax, PredictorSettings(**settings))
        return
    with pytest.raises(
        ConfigError, match=rf"predictor\.{key} is 8; allowed for this network: sides from 16 px"
    ):
        predictor(Large(), NORM, softmax, PredictorSettings(**settings))


@pytest.mark.parametrize("tile", [None, 100])
def test_two_networks_by_product_and_by_mean(tile):
    model, factor = Strided(), torch.tensor([2.0, -1.0, 0.5, 3.0]).view(1, 4, 1, 1)
    other = EnsembleMember(lambda images: factor * images[:, :1].float() / 255, None, "other", 7)

    def run(merge, x):
        settings = PredictorSettings(ensemble="other", ensemble_merge=merge, tile=tile, overlap=0)
        return predictor(model, NORM, softmax, settings, ensemble=[other])(x)

    x = image(100, 200)
    with torch.no_grad():
        halves = [model(NORM(half)).upsampled() for half in ((x[..., :100], x[..., 100:]) if tile else (x,))]
    own, second = torch.cat(halves, -1), factor * x[:, :1].float() / 255
    torch.testing.assert_close(run("mean", x), (own.softmax(1) + second.softmax(1)) / 2)
    torch.testing.assert_close(run("product", x), (own.clamp_min(0) * second.clamp_min(0)).softmax(1))


def test_several_networks_by_their_mean():
    model, factors = Strided(), [torch.tensor([2.0, -1.0, k, 3.0]).view(1, 4, 1, 1) for k in (0.5, 5.0)]
    others = [
        EnsembleMember(lambda images, factor=factor: factor * images[:, :1].float() / 255, None, name, 7)
        for name, factor in zip("ab", factors, strict=True)
    ]
    x, settings = image(64, 64), PredictorSettings(ensemble=["a", "b"])
    with torch.no_grad():
        scores = [model(NORM(x)).upsampled(), *(factor * x[:, :1].float() / 255 for factor in factors)]
    expected = sum(one.softmax(1) for one in scores) / 3
    torch.testing.assert_close(predictor(model, NORM, softmax, settings, ensemble=others)(x), expected)
    with pytest.raises(
        ConfigError, match=r"product joins two networks, and predictor.ensemble names 2 besides"
    ):
        predictor(model, NORM, softmax, PredictorSettings(ensemble=["a", "b"], ensemble_merge="product"))
    with pytest.raises(ConfigError, match=r"predictor.ensemble names a twice"):
        read_ensemble(PredictorSettings(ensemble=["a", "b", "a"]), torch.device("cpu"))
    assert PredictorSettings(ensemble=["a"]).merge == PredictorSettings(ensemble="a").merge == "product"
