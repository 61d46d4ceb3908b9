"""Tiles and views: what must be equal is equal, whatever is composed."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from segtrain import predictor as module
from segtrain.errors import ConfigError
from segtrain.predictor import _starts, average, choose_device, predictor, sliding
from segtrain.sample import Normalisation, Output
from segtrain.settings import PredictorSettings
from segtrain.tta import TTA

NORM = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


class Pointwise(nn.Module):
    """Looks at one pixel at a time: tiling and flipping must change nothing."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))

    def forward(self, x):
        return Output(self.layers(x), tuple(x.shape[-2:]))


def images(height=37, width=53, count=2):
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def run(model, views=(), **settings):
    return predictor(model, NORM, lambda logits: logits.softmax(1), PredictorSettings(**settings), views)


def test_probabilities_of_a_plain_pass():
    model = Pointwise()
    x = images()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (NORM.mean, NORM.std))
    expected = model.layers((x.float() / 255 - mean) / std).softmax(1)
    got = run(model)(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got.sum(1), torch.ones(2, 37, 53))


@pytest.mark.parametrize("tile", [8, 16, 36, 64])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_tiles_of_a_pointwise_network_change_nothing(tile, overlap):
    model = Pointwise()
    torch.testing.assert_close(run(model, tile=tile, overlap=overlap)(images()), run(model)(images()))


@pytest.mark.parametrize("axes", [["horizontal"], ["vertical"], ["horizontal", "vertical", "both"]])
def test_flips_of_a_pointwise_network_change_nothing(axes):
    model = Pointwise()
    views = TTA.build_each({"flip": {"axes": axes}})
    torch.testing.assert_close(run(model, views)(images()), run(model)(images()))


@pytest.mark.parametrize("name", TTA.names())
def test_views_hold_the_plain_image_and_undo_themselves(name):
    (views,) = TTA.build_each({name: {}})
    x = torch.randn(1, 4, 7, 9)
    assert any(torch.equal(view.forward(x), x) for view in views)
    for view in views:
        assert torch.equal(view.backward(view.forward(x)), x)


def test_average_is_the_mean_over_views():
    def column(x):
        return torch.arange(x.shape[-1], dtype=torch.float32).expand(1, 1, 2, -1)

    both = average(column, TTA.build_each({"flip": {}}))
    torch.testing.assert_close(both(torch.zeros(1, 3, 2, 5)), torch.full((1, 1, 2, 5), 2.0))


def test_tiles_are_averaged_where_they_overlap():
    calls = iter([1.0, 3.0])
    tiled = sliding(lambda x: torch.full((1, 1, *x.shape[-2:]), next(calls)), tile=4, overlap=0.5)
    assert tiled(torch.zeros(1, 3, 4, 6))[0, 0, 0].tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize("length", range(1, 80))
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.75])
def test_tiles_cover_everything_with_the_overlap(length, overlap):
    tile = 16
    starts = _starts(length, tile, overlap)
    covered = {i for start in starts for i in range(start, min(start + tile, length))}
    assert covered == set(range(length)) and starts[-1] == max(0, length - tile)
    assert all(b - a <= max(1, round(tile * (1 - overlap))) for a, b in itertools.pairwise(starts))


def test_large_images_are_tiled_unasked(monkeypatch):
    monkeypatch.setattr(module, "AUTO_TILE_PIXELS", 1000)
    monkeypatch.setattr(module, "AUTO_TILE", 20)
    seen = []
    sliding(lambda x: seen.append(tuple(x.shape[-2:])) or torch.zeros(1, 1, *x.shape[-2:]), None, 0.0)(torch.zeros(1, 3, 30, 50))
    assert len(seen) == 6 and set(seen) == {(20, 20)}


def test_training_mode_is_given_back_and_no_gradient_is_kept():
    model = nn.Sequential(Pointwise()).train()
    model.forward = lambda x: model[0](x)
    assert not run(model)(images()).requires_grad and model.training and model[0].training


def test_a_wrong_overlap_and_a_wrong_device_are_refused():
    with pytest.raises(ConfigError, match=r"predictor.overlap is 1.0"):
        sliding(lambda x: x, 8, 1.0)
    with pytest.raises(ConfigError, match="device is 'gpu'"):
        choose_device("gpu")
    assert choose_device("cpu").type == "cpu"


def test_normalisation_of_16_bit_and_float_images():
    norm = Normalisation((0.5,), (0.25,))
    full = torch.from_numpy(np.array([[[[0, 65535]]]], dtype=np.uint16))
    torch.testing.assert_close(norm(full), torch.tensor([[[[-2.0, 2.0]]]]))
    torch.testing.assert_close(norm(torch.tensor([[[[0.0, 1.0]]]])), torch.tensor([[[[-2.0, 2.0]]]]))
    torch.testing.assert_close(norm(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)), torch.tensor([[[[-2.0, 2.0]]]]))


def test_somebody_is_asked_before_each_pass_of_the_network():
    calls = []
    settings = PredictorSettings(tile=16, overlap=0.0)
    predict = predictor(Pointwise(), NORM, lambda logits: logits.softmax(1), settings, between=lambda: calls.append(1))
    predict(images(32, 48))
    assert len(calls) == 6


@pytest.mark.parametrize("dtype", ["int64", "bool", "int16"])
def test_pixels_of_an_unknown_scale_are_refused(dtype):
    from segtrain.predictor import Mask
    from segtrain.sample import Facts

    mask = Mask(None, None, Facts(classes=("a",), palette=((0, 0, 0),)), torch.device("cpu"))
    with pytest.raises(ConfigError, match=f"pixels of {dtype}"):
        mask(np.zeros((4, 4, 3), dtype))
