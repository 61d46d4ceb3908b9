"""The dense CRF: what must hold of any mean field, and the same in numpy over all pairs of pixels."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.predictor import crf as module
from segtrain.predictor.crf import PRESETS, colours, crf, mean_field, permutohedral
from segtrain.predictor.predictor import predictor
from segtrain.sample import Normalisation, Output
from segtrain.settings import PredictorSettings
from segtrain.tta import TTA

every_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
needs_pydensecrf = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None, reason="needs segtrain[crf]"
)


def example(height=23, width=17, classes=4, count=2):
    """Noise in colour and class."""
    g = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, height, width, generator=g) * 255, torch.randn(
        count, classes, height, width, generator=g
    ).softmax(1)


def direct(probabilities, rgb, preset):
    """Mean field over all pairs (Krähenbühl & Koltun 2011, algorithm 1), one image, float64: C×H×W and
    3×H×W."""
    classes, height, width = probabilities.shape
    place = np.stack(np.mgrid[:height, :width], -1).reshape(-1, 2).astype(float)
    colour, p = rgb.reshape(3, -1).T.astype(float), probabilities.reshape(classes, -1).astype(float)
    far = ((place[:, None] - place) ** 2).sum(-1)
    unlike = ((colour[:, None] - colour) ** 2).sum(-1)
    smooth = np.exp(-far / (2 * preset.gaussian_xy**2))
    alike = np.exp(-far / (2 * preset.bilateral_xy**2) - unlike / (2 * preset.bilateral_rgb**2))
    total = 0
    for weight, kernel in ((preset.gaussian_weight, smooth), (preset.bilateral_weight, alike)):
        root = np.sqrt(kernel.sum(1))
        total = total + weight * kernel / root / root[:, None]
    np.fill_diagonal(total, 0)
    q = p / p.sum(0)
    for _ in range(preset.steps):
        energy = (
            -np.log(p) - q @ total
        )  # Potts: what other classes cost is, up to a constant, what one's own does not
        q = np.exp(-energy - (-energy).max(0))
        q /= q.sum(0)
    return q.reshape(classes, height, width)


@every_preset
def test_all_pairs_of_a_small_image(preset):
    rgb, p = example(6, 7)
    rgb = rgb / 20  # so that the bilateral kernel of 3 grey values is not nothing
    got = mean_field(p, rgb, preset, 15)
    for i in range(2):
        np.testing.assert_allclose(got[i].numpy(), direct(p[i].numpy(), rgb[i].numpy(), preset), atol=2e-6)
    assert (got - p).abs().max() > 0.1


@every_preset
def test_marginals_sum_to_1(preset):
    rgb, p = example()
    got = mean_field(p, rgb, preset, 11)
    assert (got.sum(1) - 1).abs().max() < 1e-6 and got.min() >= 0 and not torch.allclose(got, p)


@every_preset
def test_nothing_to_go_by_stays_so(preset):
    uniform = torch.full((1, 5, 20, 30), 0.2)
    torch.testing.assert_close(mean_field(uniform, torch.full((1, 3, 20, 30), 77.0), preset, 11), uniform)


def test_weights_of_0_change_nothing():
    rgb, p = example()
    p[0, :, 3, 3] = torch.tensor([1.0, 0, 0, 0])
    preset = replace(PRESETS["pydensecrf"], gaussian_weight=0, bilateral_weight=0)
    torch.testing.assert_close(mean_field(p, rgb, preset, 11), p)


def test_only_differences_of_colour_count():
    rgb, p = example()
    preset = replace(PRESETS["deeplab"], gaussian_weight=0, bilateral_rgb=20)
    shifted = rgb.round() + torch.tensor([30.0, -20.0, 11.0]).view(1, 3, 1, 1)
    got = mean_field(p, rgb.round(), preset, 7)
    torch.testing.assert_close(mean_field(p, shifted, preset, 7), got)
    assert not torch.allclose(mean_field(p, rgb.round() * 0.9, preset, 7), got, atol=1e-3)


def two_colours():
    """(images, classes, noisy probabilities) of a slanted border; one pixel in five says the wrong class."""
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(50), indexing="ij")
    truth = (columns + rows // 2 > 33).long()
    g = torch.Generator().manual_seed(0)
    pixels = torch.where(
        truth[None].bool(),
        torch.tensor([200, 60, 40])[:, None, None],
        torch.tensor([40, 90, 160])[:, None, None],
    )
    noisy = torch.where(torch.rand(40, 50, generator=g) < 0.2, 1 - truth, truth)
    p = 0.7 * nn.functional.one_hot(noisy, 2).permute(2, 0, 1) + 0.15
    return pixels.byte()[None], truth, p[None].float()


@every_preset
def test_noise_goes_and_the_border_stays(preset):
    image, truth, p = two_colours()
    assert (p.argmax(1)[0] != truth).float().mean() > 0.15
    wrong = mean_field(p, colours(image), preset, 11).argmax(1)[0] != truth
    assert wrong.float().mean() < 0.01


def test_images_of_any_depth_and_of_one_channel():
    image = two_colours()[0]
    torch.testing.assert_close(colours((image.int() * 257).to(torch.uint16)), colours(image))
    torch.testing.assert_close(colours(image.float() / 255), colours(image))
    assert torch.equal(colours(image[:, :1]), image[:, :1].float().expand(1, 3, -1, -1))
    with pytest.raises(ConfigError, match=r"predictor.crf compares colours, and the images have 4 channels"):
        colours(torch.zeros(1, 4, 2, 2))


def test_one_class_is_refused():
    with pytest.raises(ConfigError, match="two classes or more"):
        mean_field(torch.ones(1, 1, 3, 3), torch.ones(1, 3, 3, 3), PRESETS["deeplab"], 3)


def test_a_solver_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'segtrain\[crf\]'"):
        crf("deeplab", 11, "pydensecrf")
    assert module.chosen_solver("auto") == module.chosen_solver("torch") == "torch"


class Painted(Network):
    """Says what the first channel says."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return Output(torch.cat([-x[:, :1], x[:, :1]], 1), tuple(x.shape[-2:]))


@pytest.fixture
def noisy():
    image = two_colours()[0]
    noise = torch.randint(-30, 30, (40, 50), generator=torch.Generator().manual_seed(1))
    image[0, 0] = (image[0, 0].int() + noise).clamp(0, 255).byte()
    return image


def painted(asked=None, **settings):
    asked = [] if asked is None else asked
    return predictor(
        Painted(),
        Normalisation((0.5,) * 3, (0.25,) * 3),
        lambda x, images: x.softmax(1),
        PredictorSettings(crf_solver="torch", **settings),
        TTA.build_each({"flip": {}}),
        lambda: asked.append(1),
    )


def test_it_comes_after_the_views(noisy):
    asked = []
    got = painted(asked, crf="deeplab", crf_window=7)(noisy)
    expected = mean_field(painted()(noisy), colours(noisy), PRESETS["deeplab"], 7)
    assert torch.equal(got, expected) and len(asked) == 2 + 10


def test_with_tiles_it_is_that_of_each_tile(noisy):
    asked = []
    run = painted(asked, crf="deeplab", crf_window=7, tile=20, overlap=0.0)
    got = run(noisy)
    assert len(asked) == 2 * 3 * (2 + 10) and len(list(run.strips(noisy))) == 2
    tile = noisy[..., 20:, 30:]
    expected = mean_field(painted()(tile), colours(tile), PRESETS["deeplab"], 7)
    torch.testing.assert_close(got[..., 20:, 35:], expected[..., 5:])
    whole = painted(crf="deeplab", crf_window=7)(noisy)
    blended = painted(crf="deeplab", crf_window=7, tile=20, overlap=0.5)(noisy)
    assert (blended - whole).abs().mean() < (got - whole).abs().mean()


@needs_pydensecrf
@every_preset
def test_pydensecrf_says_about_the_same(preset):
    image, truth, p = two_colours()
    got = permutohedral(torch.cat([p, p]), colours(torch.cat([image, image])), preset)
    assert torch.equal(got[0], got[1]) and (got.sum(1) - 1).abs().max() < 1e-5
    ours = mean_field(p, colours(image), preset, 101)
    assert (got.argmax(1)[0] != truth).float().mean() < 0.01 and (got[0] - ours[0]).abs().mean() < 0.1


@needs_pydensecrf
def test_pydensecrf_is_chosen_where_it_is_installed():
    image, _, p = two_colours()
    assert torch.equal(
        crf("deconvnet", 11, "auto")(image, p), permutohedral(p, colours(image), PRESETS["deconvnet"])
    )
