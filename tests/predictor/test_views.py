"""Views: what they see is mapped back to where it is, and merged by weight."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.predictor.predictor import predictor
from segtrain.predictor.views import IDENTITY, average
from segtrain.sample import Normalisation, Output, View
from segtrain.settings import PredictorSettings
from segtrain.tta import TTA

NORM = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def turned(x: torch.Tensor, degrees: float) -> torch.Tensor:
    """…×H×W float, about its middle; 0 comes in from outside."""
    height, width = x.shape[-2:]
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[c, -s * height / width, 0.0], [s * width / height, c, 0.0]])
    grid = F.affine_grid(matrix.expand(len(x), 2, 3), [*x.shape], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def rotate(angles: tuple[float, ...] = (10.0,)) -> list[View]:
    """Views turned by angles; what was turned out of the picture has no weight.

    Options:
        angles: in degrees
    """

    def view(degrees: float) -> View:
        def backward(probabilities, size):
            valid = turned(turned(torch.ones(1, 1, *size), degrees), -degrees) > 0.9999
            return turned(probabilities, -degrees), valid.float().expand(len(probabilities), 1, *size)

        return View(lambda x: turned(x.float(), degrees).round().to(x.dtype), backward)

    return [view(degrees) for degrees in angles]


def scale(factors: tuple[float, ...] = (2.0,)) -> list[View]:
    """Views enlarged or made smaller.

    Options:
        factors: of height and width
    """

    def resized(x, size):
        return F.interpolate(x.float(), size=size, mode="bilinear", align_corners=False)

    def view(factor: float) -> View:
        def forward(x):
            return resized(x, [max(1, round(side * factor)) for side in x.shape[-2:]]).round().to(x.dtype)

        return View(forward, lambda probabilities, size: (resized(probabilities, size), 1.0))

    return [view(factor) for factor in factors]


@pytest.fixture
def tta(monkeypatch):
    """The table with both of them."""
    monkeypatch.setitem(TTA._entries, "rotate", rotate)
    monkeypatch.setitem(TTA._entries, "scale", scale)
    return TTA


CHOICES = [
    {"flip": {"axes": ["horizontal", "vertical", "both"]}},
    {"rotate": {"angles": [-12.0, 90.0]}},
    {"scale": {"factors": [0.5, 1.7]}},
    {"rotate": {}, "scale": {}, "flip": {}},
    {"scale": {"factors": [0.6]}, "rotate": {"angles": [5.0]}},
]


class Local(Network):
    """Looks at 3×3 pixels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return Output(self.layer(x), tuple(x.shape[-2:]))


def images(height=37, width=53):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


def run(views=(), **settings):
    return predictor(
        Local(), NORM, lambda logits, images: logits.softmax(1), PredictorSettings(**settings), views
    )


def test_the_plain_image_alone_is_the_plain_answer():
    plain = run()(images())
    assert torch.equal(run([[]])(images()), plain)
    assert torch.equal(run([[IDENTITY], []])(images()), plain)


@pytest.mark.parametrize("choice", CHOICES)
def test_constants_stay_constant(tta, choice):
    shares = torch.tensor([0.5, 0.125, 0.25, 0.125]).view(1, 4, 1, 1)

    def constant(x):
        return shares.expand(len(x), 4, *x.shape[-2:])

    found = average(constant, tta.build_each(choice))(images())
    torch.testing.assert_close(found, constant(images()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("choice", CHOICES)
def test_probabilities_sum_to_1(tta, choice):
    found = run(tta.build_each(choice))(images())
    assert found.shape == (2, 4, 37, 53)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 37, 53), rtol=0, atol=1e-5)
    assert not torch.allclose(found, run()(images()), atol=1e-3)


def test_the_mean_is_weighted_and_what_was_turned_out_has_no_weight():
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    answers = iter([first, second])

    def one_each(x):
        return next(answers).view(1, 2, 1, 1).expand(len(x), 2, *x.shape[-2:])

    found = average(one_each, [rotate((20.0,))])(images(40, 60))
    weight = rotate((20.0,))[0].backward(torch.ones(2, 2, 40, 60), (40, 60))[1]
    assert weight[0, 0, 0, 0] == 0 and weight[0, 0, 20, 30] == 1
    torch.testing.assert_close(found[:, 1:], weight / (1 + weight), rtol=0, atol=1e-6)
    assert torch.equal(found[0, :, 0, 0], first)


def test_a_weight_goes_back_through_the_views_before_it():
    """Only the left half of a mirrored image counts: the right half of the image."""
    left = View(
        lambda x: x,
        lambda p, size: (p, (torch.arange(size[1]) < size[1] // 2).float().expand(len(p), 1, *size)),
    )
    answers = iter([0.0, 1.0, 2.0, 4.0])  # plain, left, mirrored, mirrored and left
    found = average(
        lambda x: torch.full((len(x), 1, *x.shape[-2:]), next(answers)),
        [*TTA.build_each({"flip": {}}), [left]],
    )(images(2, 4))
    # Of the combinations, left counts on the left of the plain image, and on the right of the mirrored one.
    assert found[0, 0, 0].tolist() == [(0 + 1 + 2) / 3] * 2 + [(0 + 2 + 4) / 3] * 2


@pytest.mark.parametrize("name", ["flip"])
def test_flips_undo_themselves(name):
    (views,) = TTA.build_each({name: {"axes": ["horizontal", "vertical", "both"]}})
    x = torch.randn(1, 4, 7, 9)
    for view in views:
        back, weight = view.backward(view.forward(x), (7, 9))
        assert torch.equal(back, x) and weight == 1 and not torch.equal(view.forward(x), x)


def test_flips_are_the_mean_over_both_sides():
    x, model = images(), run()
    expected = (model(x) + model(x.flip(-1)).flip(-1)) / 2
    assert torch.equal(run(TTA.build_each({"flip": {}}))(x), expected)


def test_views_of_another_size_need_all_of_the_image():
    def inner(x):
        return x[..., 1:-1, 1:-1].float()

    assert average(inner, [rotate((90.0,))])(images(20, 20)).shape == (2, 3, 18, 18)
    with pytest.raises(ConfigError, match=r"a view of tta has another size .* use predictor\.tile=null"):
        average(inner, [scale()])(images(20, 20))


def test_a_views_options_are_checked(tta):
    with pytest.raises(ConfigError, match=r"tta\.rotate\.angle is not an option .*did you mean 'angles'"):
        tta.build_each({"rotate": {"angle": 3}})
