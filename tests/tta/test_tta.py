"""The views that segtrain brings: what they see, what comes back, and how they are merged."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.predictor.predictor import predictor, refined
from segtrain.predictor.views import Merge, average, disagreement, split_votes
from segtrain.sample import Normalisation, Output, View, Window
from segtrain.settings import PredictorSettings
from segtrain.tta import TTA

NORM = Normalisation((0.5, 0.4, 0.3, 0.2), (0.2, 0.3, 0.4, 0.5))
ALL = {"flip": {}, "rot90": {"turns": [90]}, "rotate": {"angles": [-5, 8]}, "scale": {"factors": [0.5, 1.3]}}
DTYPES = [torch.uint8, torch.uint16, torch.float32]


def built(choice, valid_side=lambda side: side):
    return TTA.build_each(choice, valid_side=valid_side)


def images(
    height=21,
    width=34,
    dtype=torch.uint8,
):
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(2, 4, height, width, generator=generator)
    full = {torch.uint8: 255, torch.uint16: 65535}.get(dtype)
    return values if full is None else (values * full).round().to(dtype)


class Convolution(Network):
    """One convolution of K = 4 channels to three classes; `margin` pixels without logits where it is not
    padded."""

    def __init__(self, side=1, symmetric=False, margin=0):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(4, 3, side, padding=0 if margin else side // 2, padding_mode="zeros")
        self.margin = margin
        self.seen = []
        if symmetric:
            with torch.no_grad():
                self.layer.weight += self.layer.weight.flip(-1).clone()

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        m, (height, width) = self.margin, x.shape[-2:]
        window = Window(m, m, height - 2 * m, width - 2 * m) if m else None
        logits = self.layer(x)
        return Output(logits, tuple(logits.shape[-2:]), window=window)


def run(network, views=(), activation="softmax", votes=False, **settings):
    def activate(logits, images):
        return logits.softmax(1) if activation == "softmax" else logits.sigmoid()

    chosen = PredictorSettings(**settings)
    return predictor(network, NORM, activate, chosen, views, activation=activation, votes=votes)


# --- geometry


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TTA.names())
def test_a_view_keeps_the_dtype_and_the_channels(name, dtype):
    (views,) = built({name: {}})
    for view in views:
        seen = view.forward(images(dtype=dtype))
        assert seen.dtype == dtype and seen.shape[:2] == (2, 4)
        back, weight = view.backward(torch.rand(2, 3, *seen.shape[-2:]), (21, 34))
        assert back.shape == (2, 3, 21, 34)
        assert (weight.shape == (2, 1, 21, 34)) if isinstance(weight, torch.Tensor) else weight == 1.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_right_angles_are_turned_without_interpolation(dtype):
    x = images(dtype=dtype)
    turned = built({"rotate": {"angles": [90, 180, -90]}})[0]
    quarters = built({"rot90": {}})[0]
    assert len(turned) == len(quarters) == 3
    for number, (view, other) in enumerate(zip(turned, quarters, strict=True), 1):
        assert torch.equal(view.forward(x), torch.rot90(x, number, (-2, -1)))
        assert torch.equal(other.forward(x), view.forward(x))
        back, weight = view.backward(view.forward(x), (21, 34))
        assert torch.equal(back, x) and weight == 1.0


def test_small_angles_turn_the_same_way_as_right_angles():
    """A bright spot on the right goes up."""
    x = torch.zeros(1, 1, 41, 41)
    x[..., 19:22, 34:37] = 1
    row, column = divmod(int(built({"rotate": {"angles": [30]}})[0][0].forward(x).argmax()), 41)
    assert abs(row - (20 - 15 * math.sin(math.radians(30)))) < 1
    assert abs(column - (20 + 15 * math.cos(math.radians(30)))) < 1


@pytest.mark.parametrize(("degrees", "kept"), [(5, 0.931), (10, 0.900), (15, 0.872), (45, 0.798)])
def test_the_share_that_a_rotation_keeps(degrees, kept):
    """The shares without erosion, of a square of 101 px, are known; eroded by one pixel they are smaller by
    up to its outline."""
    view = built({"rotate": {"angles": [degrees]}})[0][0]
    valid = view.backward(torch.ones(1, 2, 101, 101), (101, 101))[1]
    assert set(valid.unique().tolist()) == {0.0, 1.0}
    assert kept - 0.05 < float(valid.mean()) < kept
    dilated = F.max_pool2d(valid, 3, 1, 1)
    assert float(dilated.mean()) == pytest.approx(kept, abs=0.002 if degrees < 45 else 0.01)


@pytest.mark.parametrize("size", [(40, 60), (61, 33)])
@pytest.mark.parametrize("degrees", [5, -12, 80])
def test_no_weight_beyond_the_canvas(size, degrees):
    """Against the place on the canvas of each pixel's centre; every pixel well inside counts."""
    view = built({"rotate": {"angles": [degrees]}})[0][0]
    valid = view.backward(torch.ones(1, 2, *size), size)[1][0, 0].bool()
    y, x = torch.meshgrid(*(torch.arange(side) - (side - 1) / 2 for side in size), indexing="ij")
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    beyond = torch.maximum((c * x + s * y).abs() - size[1] / 2, (c * y - s * x).abs() - size[0] / 2)
    border = torch.maximum(x.abs() - size[1] / 2, y.abs() - size[0] / 2)
    assert not valid[beyond > -1].any() and not valid[border > -1.4][:3].all()
    assert valid[(beyond < -4) & (border < -4)].all()


def test_an_enlarged_canvas_keeps_all_but_the_outline():
    view = built({"rotate": {"angles": [45], "expand": True}})[0][0]
    seen = view.forward(images(60, 80, torch.float32))
    assert seen.shape[-2:] == (99, 99)
    valid = view.backward(torch.ones(1, 2, 99, 99), (60, 80))[1][0, 0]
    assert valid[3:-3, 3:-3].all()


def test_what_is_rotated_there_and_back_is_the_image():
    smooth = F.interpolate(images(6, 8, torch.float32), (60, 80), mode="bicubic")
    view = built({"rotate": {"angles": [7]}})[0][0]
    back, valid = view.backward(view.forward(smooth), (60, 80))
    assert ((back - smooth) * valid).abs().max() < 0.03
    assert (back - smooth).abs().max() > 0.1


def test_the_mirrored_border_fills_the_corners():
    """No black triangles in what the network sees."""
    assert built({"rotate": {"angles": [20]}})[0][0].forward(torch.full((1, 3, 30, 50), 200)).unique() == 200


def test_scaled_and_enlarged_images_have_sides_that_the_network_takes():
    def sides(side):
        return -(-side // 16) * 16

    views = [
        *built({"scale": {"factors": [0.5, 1, 1.75]}}, sides)[0],
        *built({"rotate": {"angles": [10], "expand": True}}, sides)[0],
    ]
    sizes = [tuple(view.forward(images(48, 80)).shape[-2:]) for view in views]
    assert sizes == [(32, 48), (96, 144), (64, 96)]  # of 24×40, 84×140 and 62×88


def test_the_plain_image_is_counted_once():
    """A scale of 1 and an angle of 0 are the identity, which is always there."""
    assert built({"scale": {"factors": [1]}, "rotate": {"angles": [0]}}) == [[], []]
    assert len(built({"rotate": {"angles": [5, 5, -180, 180]}})[0]) == 2


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"rotate": {"angles": [181]}}, r"tta\.rotate\.angles\[0\] is 181.*from -180 to 180"),
        ({"rotate": {"angles": []}}, r"tta\.rotate\.angles .*1 to 36 entries"),
        ({"scale": {"factors": [0]}}, r"tta\.scale\.factors\[0\] is 0.*from 0\.1 to 4"),
        ({"rot90": {"turns": [45]}}, r"tta\.rot90\.turns is \[45\]"),
        ({"scale": {"valid_side": 3}}, r"valid_side comes from the data and the network"),
    ],
)
def test_limits(choice, message):
    with pytest.raises(ConfigError, match=message):
        TTA.check_each(choice)


# --- merging

LOGIT = {"tta_merge": "logit"}


@pytest.mark.parametrize("settings", [{}, LOGIT])
@pytest.mark.parametrize("choice", [{"flip": {"axes": ["horizontal", "vertical", "both"]}}, {"rot90": {}}])
def test_a_pointwise_network_answers_the_same_for_every_view(choice, settings):
    network, x = Convolution(), images()
    plain = run(network)(x)
    torch.testing.assert_close(run(network, built(choice), **settings)(x), plain, rtol=0, atol=2e-7)
    assert len(network.seen) == 5


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("settings", [{}, LOGIT])
def test_a_pointwise_network_answers_the_same_for_rotated_and_scaled_constants(settings, activation):
    network, x = Convolution(), torch.tensor([30, 200, 90, 1], dtype=torch.uint8).view(1, 4, 1, 1)
    x = x.expand(2, 4, 21, 34)
    plain = run(network, activation=activation)(x)
    got = run(network, built(ALL), activation=activation, **settings)(x)
    torch.testing.assert_close(got, plain, rtol=0, atol=1e-6)


def test_an_equivariant_network_answers_the_same_for_a_symmetric_image():
    network, x = Convolution(3, symmetric=True), images()
    x = torch.maximum(x, x.flip(-1))
    plain = run(network)(x)
    torch.testing.assert_close(plain, plain.flip(-1), rtol=0, atol=1e-6)
    torch.testing.assert_close(run(network, built({"flip": {}}))(x), plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(run(network, built({"flip": {}}), **LOGIT)(x), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, LOGIT, {"tile": 16}, {"tile": 16, **LOGIT}])
def test_probabilities_sum_to_1(settings):
    found = run(Convolution(3), built(ALL), **settings)(images())
    torch.testing.assert_close(found.sum(1), torch.ones(2, 21, 34), rtol=0, atol=2e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_merging_logits_is_the_renormalised_geometric_mean(activation):
    network, x = Convolution(3), images()
    logits = [network(NORM(x)).logits, network(NORM(x.flip(-1))).logits.flip(-1)]
    mean = (logits[0] + logits[1]) / 2
    got = run(network, built({"flip": {}}), activation=activation, **LOGIT)(x)
    if activation == "softmax":
        product = (logits[0].softmax(1) * logits[1].softmax(1)).sqrt()
        expected = product / product.sum(1, keepdim=True)
        torch.testing.assert_close(mean.softmax(1), expected, rtol=0, atol=1e-6)
    else:
        of, against = ((a.sigmoid() * b.sigmoid()).sqrt() for a, b in (logits, [-logits[0], -logits[1]]))
        expected = of / (of + against)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    arithmetic = run(network, built({"flip": {}}), activation=activation)(x)
    assert (got - arithmetic).abs().max() > 1e-3


def test_merging_logits_leaves_out_what_has_no_weight():
    """Rotated views are 0 beyond their canvas; the logarithm of that must not count."""
    network, x = Convolution(3), images()
    view = built({"rotate": {"angles": [40]}})
    valid = view[0][0].backward(torch.ones(2, 3, 21, 34), (21, 34))[1].bool().expand(2, 3, 21, 34)
    got, plain = run(network, view, **LOGIT)(x), run(network)(x)
    assert got.isfinite().all() and not valid.all()
    torch.testing.assert_close(got[~valid], plain[~valid], rtol=0, atol=1e-6)
    assert (got - plain)[valid].abs().max() > 1e-3


def test_certain_probabilities_stay_finite():
    certain = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    for activation in ("softmax", "sigmoid"):
        merged = average(
            lambda x: certain.expand(len(x), 2, *x.shape[-2:]),
            built({"flip": {}}),
            Merge("logit", activation),
        )(images())
        torch.testing.assert_close(merged, certain.expand(2, 2, 21, 34), rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, LOGIT])
def test_the_order_of_the_views_does_not_matter(settings):
    network, x = Convolution(3), images()
    there = {"rotate": {"angles": [-5, 5, 90]}, "flip": {"axes": ["vertical", "both"]}}
    back = {"rotate": {"angles": [90, 5, -5]}, "flip": {"axes": ["both", "vertical"]}}
    torch.testing.assert_close(
        run(network, built(there), **settings)(x), run(network, built(back), **settings)(x), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("choice", [ALL, {"flip": {}, "rot90": {}}])
def test_views_of_one_size_share_a_batch(choice):
    network, x = Convolution(3), images()
    alone = run(network, built(choice), tta_batch=1)(x)
    passes = network.seen.copy()
    network.seen.clear()
    together = run(network, built(choice), tta_batch=3)(x)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert {shape[0] for shape in passes} == {2} and max(shape[0] for shape in network.seen) == 6
    assert len(network.seen) < len(passes) and sum(shape[0] for shape in network.seen) == 2 * len(passes)


def test_probabilities_are_warped_and_never_their_argmax():
    seen = []

    def spied(view):
        def backward(probabilities, size):
            seen.append(probabilities)
            return view.backward(probabilities, size)

        return View(view.forward, backward)

    views = [[spied(view) for view in built({"rotate": {}})[0]]]
    run(Convolution(3), views)(images())
    assert len(seen) == 2
    for probabilities in seen:
        assert probabilities.dtype == torch.float32
        assert ((probabilities > 0.01) & (probabilities < 0.99)).float().mean() > 0.5


# --- networks that answer for the inner part of their input


def test_views_of_any_size_with_a_network_without_padding():
    network = Convolution(3, margin=1)
    network.tile_sides = (8, 2)
    got = run(network, built(ALL))(images())
    assert got.shape == (2, 3, 21, 34)
    torch.testing.assert_close(got.sum(1), torch.ones(2, 21, 34), rtol=0, atol=2e-6)


def test_by_tile_such_a_network_takes_views_of_the_same_size_only():
    network = Convolution(3, margin=1)
    network.tile_sides = (8, 2)
    same = built({"flip": {}, "rotate": {}, "rot90": {}})
    assert run(network, same, tile=20)(images()).shape == (2, 3, 21, 34)
    for choice in ({"scale": {}}, {"rotate": {"expand": True}}):
        with pytest.raises(ConfigError, match=r"a view of tta has another size .* use predictor\.tile=null"):
            run(network, built(choice), tile=20)(images())


# --- disagreement


def test_disagreement_is_the_share_of_other_votes():
    answers = iter([[0.6, 0.4, 0.0], [0.6, 0.4, 0.0], [0.0, 0.4, 0.6], [0.0, 1.0, 0.0]])

    def one_each(x):
        return torch.tensor(next(answers)).view(1, 3, 1, 1).expand(len(x), 3, *x.shape[-2:])

    views = built({"flip": {"axes": ["horizontal", "vertical", "both"]}})
    probabilities, votes = split_votes(average(one_each, views, Merge(votes=True))(images()))
    torch.testing.assert_close(probabilities[0, :, 0, 0], torch.tensor([0.3, 0.55, 0.15]))
    assert votes[0, :, 0, 0].tolist() == [0.5, 0.25, 0.25]
    found = disagreement(probabilities.argmax(1), votes)
    assert found.shape == (2, 21, 34) and found.unique().tolist() == [0.75]


@pytest.mark.parametrize("settings", [{}, {"tile": 16}, LOGIT])
def test_votes_come_with_the_same_probabilities(settings):
    network, x = Convolution(3), images()
    plain = run(network, built(ALL), **settings)(x)
    probabilities, votes = split_votes(run(network, built(ALL), votes=True, **settings)(x))
    torch.testing.assert_close(probabilities, plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(votes.sum(1), torch.ones(2, 21, 34), rtol=0, atol=1e-5)
    assert 0 < float(disagreement(plain.argmax(1), votes).mean()) < 0.5


def test_refining_leaves_the_votes_as_they_are():
    values = torch.rand(2, 6, 21, 34)
    found = refined(lambda x: values, lambda images, probabilities: probabilities.flip(1), votes=True)(
        images()
    )
    assert torch.equal(found, torch.cat([values[:, :3].flip(1), values[:, 3:]], dim=1))
