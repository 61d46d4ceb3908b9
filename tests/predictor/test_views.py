"""Views: what they see is mapped back to where it is, and merged by weight."""

import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.predictor.predictor import predictor
from segtrain.predictor.views import IDENTITY, average
from segtrain.sample import Normalisation, Output, View
from segtrain.settings import PredictorSettings
from segtrain.tta import TTA

NORM = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def built(choice):
    return TTA.build_each(choice, valid_side=lambda side: side)


def rotate(angles, **options):
    return built({"rotate": {"angles": list(angles), **options}})[0]


CHOICES = [
    {"flip": {"axes": ["horizontal", "vertical", "both"]}},
    {"rot90": {}},
    {"rotate": {"angles": [-12.0, 90.0]}},
    {"rotate": {"angles": [30], "expand": True}},
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
def test_constants_stay_constant(choice):
    shares = torch.tensor([0.5, 0.125, 0.25, 0.125]).view(1, 4, 1, 1)

    def constant(x):
        return shares.expand(len(x), 4, *x.shape[-2:])

    found = average(constant, built(choice))(images())
    torch.testing.assert_close(found, constant(images()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("choice", CHOICES)
def test_probabilities_sum_to_1(choice):
    found = run(built(choice))(images())
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
        [*built({"flip": {}}), [left]],
    )(images(2, 4))
    # Of the combinations, left counts on the left of the plain image, and on the right of the mirrored one.
    assert found[0, 0, 0].tolist() == [(0 + 1 + 2) / 3] * 2 + [(0 + 2 + 4) / 3] * 2


@pytest.mark.parametrize("name", ["flip"])
def test_flips_undo_themselves(name):
    (views,) = built({name: {"axes": ["horizontal", "vertical", "both"]}})
    x = torch.randn(1, 4, 7, 9)
    for view in views:
        back, weight = view.backward(view.forward(x), (7, 9))
        assert torch.equal(back, x) and weight == 1 and not torch.equal(view.forward(x), x)


def test_flips_are_the_mean_over_both_sides():
    x, model = images(), run()
    expected = (model(x) + model(x.flip(-1)).flip(-1)) / 2
    assert torch.equal(run(built({"flip": {}}))(x), expected)


def test_views_of_another_size_need_all_of_the_image():
    def inner(x):
        return x[..., 1:-1, 1:-1].float()

    assert average(inner, [rotate((90.0,))])(images(20, 20)).shape == (2, 3, 18, 18)
    with pytest.raises(ConfigError, match=r"a view of tta has another size .* use predictor\.tile=null"):
        average(inner, built({"scale": {}}))(images(20, 20))


def test_a_views_options_are_checked():
    with pytest.raises(ConfigError, match=r"tta\.rotate\.angle is not an option .*did you mean 'angles'"):
        built({"rotate": {"angle": 3}})
