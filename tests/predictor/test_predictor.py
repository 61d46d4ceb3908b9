"""Tiles and views: what must be equal is equal, whatever is composed."""

import numpy as np
import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.predictor.device import choose_device
from segtrain.predictor.predictor import predictor
from segtrain.predictor.tiles import starts
from segtrain.sample import Normalisation, Output
from segtrain.settings import PredictorSettings
from segtrain.tta import TTA

NORM = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


class Pointwise(Network):
    """Looks at one pixel at a time: tiling and flipping must change nothing."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))

    def forward(self, x):
        return Output(self.layers(x), tuple(x.shape[-2:]))


def images(height=37, width=53, count=2):
    return torch.randint(
        0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def run(model, views=(), **settings):
    return predictor(
        model, NORM, lambda logits, images: logits.softmax(1), PredictorSettings(**settings), views
    )


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


def test_training_mode_is_given_back_and_no_gradient_is_kept():
    model = Pointwise().train()
    assert not run(model)(images()).requires_grad and model.training and model.layers.training


def test_a_module_that_stays_in_evaluation_mode_does_so():
    model = Pointwise().train()
    model.layers[0].eval()
    run(model)(images())
    assert model.training and model.layers[2].training and not model.layers[0].training


def test_a_wrong_device_is_refused():
    with pytest.raises(ConfigError, match="device is 'gpu'"):
        choose_device("gpu")
    assert choose_device("cpu").type == "cpu"


def test_normalisation_of_16_bit_and_float_images():
    norm = Normalisation((0.5,), (0.25,))
    full = torch.from_numpy(np.array([[[[0, 65535]]]], dtype=np.uint16))
    torch.testing.assert_close(norm(full), torch.tensor([[[[-2.0, 2.0]]]]))
    torch.testing.assert_close(norm(torch.tensor([[[[0.0, 1.0]]]])), torch.tensor([[[[-2.0, 2.0]]]]))
    torch.testing.assert_close(
        norm(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)), torch.tensor([[[[-2.0, 2.0]]]])
    )


def test_somebody_is_asked_before_each_pass_of_the_network():
    calls = []
    settings = PredictorSettings(tile=16, overlap=0.0)
    predict = predictor(
        Pointwise(),
        NORM,
        lambda logits, images: logits.softmax(1),
        settings,
        interrupt=lambda: calls.append(1),
    )
    predict(images(32, 48))
    assert len(calls) == 6


@pytest.mark.parametrize("dtype", ["int64", "bool", "int16"])
def test_pixels_of_an_unknown_scale_are_refused(dtype):
    from segtrain.predictor.mask import Mask
    from segtrain.sample import Facts

    mask = Mask(None, None, Facts(classes=("a",), palette=((0, 0, 0),)), torch.device("cpu"))
    with pytest.raises(ConfigError, match=f"pixels of {dtype}"):
        mask(np.zeros((4, 4, 3), dtype))


@pytest.mark.parametrize("views", [{}, {"flip": {}}])
def test_a_mask_made_of_strips_is_that_of_the_whole_probabilities(views):
    from segtrain.predictor.mask import Mask
    from segtrain.sample import Facts

    run_tiled = run(Pointwise(), TTA.build_each(views), tile=16, overlap=0.4)
    mask = Mask(
        run_tiled,
        lambda p: p.max(1).indices,
        Facts(classes=tuple("abcd"), palette=((0, 0, 0),) * 4),
        torch.device("cpu"),
    )
    image = images(61, 33, 1)
    assert len(list(run_tiled.strips(image))) == len(starts(61, 16, 0.4))
    classes = mask(image[0].numpy().transpose(1, 2, 0))
    assert classes.shape == (61, 33) and classes.dtype == np.uint8 and len(np.unique(classes)) > 1
    assert np.array_equal(classes, run_tiled(image).argmax(1)[0].numpy())
    assert torch.equal(run_tiled.decided(lambda p: p.argmax(1), image)[0], torch.from_numpy(classes))
    assert np.array_equal(classes, mask.decide(mask.probabilities(image[0].numpy().transpose(1, 2, 0))))


def run_of(folder, model: dict, net: nn.Module):
    from segtrain import checkpoint
    from segtrain.sample import Facts

    facts = Facts(("a", "b", "c"), ((0, 0, 0),) * 3, normalisation=NORM)
    config = {
        "model": model,
        "task": {"name": "semantic"},
        "data": {"name": "shapes"},
        "trainer": {"steps": 1},
    }
    about = {
        "config": config,
        "facts": facts.plain(),
        "task": "semantic",
        "step": 1,
        "scores": None,
        "protocol": None,
    }
    folder.mkdir()
    return checkpoint.save(folder, 1, net.state_dict(), {}, about)


def test_advice_is_written_as_it_is_typed(tmp_path):
    from segtrain.checkpoint.reading import read_folder
    from segtrain.checkpoint.restore import build_from
    from segtrain.model.deeplabv3 import deeplabv3

    options = {"encoder": "test_resnet", "weights": "none", "aspp_width": 8}
    found = run_of(tmp_path / "run", {"name": "deeplabv3", **options}, deeplabv3(3, **options))
    with pytest.raises(ConfigError) as error:
        build_from(read_folder(found), {"rates": [1, 2], "aux": True, "multi_grid": [2]})
    assert str(error.value).endswith(
        "the weights were trained with model.rates=null model.aux=false model.multi_grid=null; for others "
        "train a new run with model.rates=[1,2] model.aux=true model.multi_grid=[2]"
    )


@pytest.mark.parametrize(
    ("options", "typed"), [({"textons": 4}, "model.textons=4"), ({"name": "unet"}, "model=unet")]
)
def test_a_fitted_network_is_not_started_from(tmp_path, options, typed):
    from segtrain.checkpoint.reading import read_folder
    from segtrain.checkpoint.restore import build_from

    classical = pytest.importorskip("segtrain.model.classical.classical", exc_type=ImportError).classical
    pytest.importorskip("skimage")
    found = run_of(
        tmp_path / "run",
        {"name": "classical", "textons": 8, "smoothing": "none"},
        classical(3, textons=8, smoothing="none"),
    )
    with pytest.raises(ConfigError, match=rf"; for others train a new run with {typed}$"):
        build_from(read_folder(found), options)


def test_training_mode_is_given_back_when_nobody_takes_all_strips():
    model = Pointwise().train()
    strips = run(model, tile=16, overlap=0.0).strips(images(48, 48))
    next(strips)
    assert not model.training
    strips.close()
    assert model.training
