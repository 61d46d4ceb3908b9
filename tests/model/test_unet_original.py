"""The U-Net of the paper: sizes, tiles without seams, initialisation."""

import math

import pytest
import torch
import torch.nn.functional as F

from segtrain.errors import ConfigError
from segtrain.loss.cross_entropy import CrossEntropy
from segtrain.model import MODEL
from segtrain.model.network import Network
from segtrain.model.parts.sides import check_sides, valid_side
from segtrain.model.unet_original import unet_original
from segtrain.sample import IGNORE, Window


def tiny(**options):
    torch.manual_seed(0)
    return unet_original(3, **{"width": 0.05, **options})


@pytest.mark.parametrize(
    ("channels", "classes", "parameters"),
    [(1, 2, 31_030_658), (3, 21, 31_033_045), (3, 19, 31_033_045 - 2 * 65)],
)
def test_parameters_are_those_of_the_paper(channels, classes, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in unet_original(classes, channels).parameters()) == parameters


def test_the_papers_sizes():
    with torch.device("meta"):
        net, x = unet_original(2, 1), torch.empty(1, 1, 572, 572)
    sides = []
    for block in (*net.encoder.levels, *net.blocks):
        block.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
    output = net(x)
    assert sides == [568, 280, 136, 64, 28, 52, 100, 196, 388]
    assert output.logits.shape == (1, 2, 388, 388)
    assert output.size == (388, 388) and output.window == Window(92, 92, 388, 388)


def output_side(side):
    """By the arithmetic of the layers; None where a map to be pooled is odd or nothing is left."""
    for _ in range(4):
        side -= 4
        if side % 2 or side <= 0:
            return None
        side //= 2
    side -= 4
    for _ in range(4):
        side = 2 * side - 4
    return side if side > 0 else None


def test_valid_sides_are_all_of_them():
    with torch.device("meta"):
        net = tiny()
    for side in range(172, 640):
        x, expected = torch.empty(1, 3, side, 188, device="meta"), output_side(side)
        if expected is None:
            with pytest.raises(ConfigError):
                net(x)
        else:
            assert net(x).size == (expected, 4) == (side - 2 * net.margin, 4)
        assert (valid_side(net, side) == side) == (expected is not None)


@pytest.mark.parametrize(
    ("size", "parts"),
    [((500, 572), ["500x572", "492 and 508"]), ((100, 229), ["188 and 204", "220 and 236"])],
)
def test_other_sizes_are_refused_with_the_nearest(size, parts):
    with pytest.raises(ConfigError) as error:
        check_sides(tiny(), *size)
    assert all(part in str(error.value) for part in parts)


def test_networks_that_pad_take_every_size():
    check_sides(Network(), 1, 77)
    assert valid_side(Network(), 77) == 77


def test_tiles_at_multiples_of_16_are_parts_of_the_whole():
    net = tiny().double().eval()
    x = torch.randn(1, 3, 268, 284, dtype=torch.float64)
    with torch.no_grad():
        whole = net(x).logits
        for top, left in ((0, 0), (16, 32), (48, 0), (32, 64)):
            part = net(x[..., top : top + 220, left : left + 220]).logits
            torch.testing.assert_close(part, whole[..., top : top + 36, left : left + 36], atol=1e-12, rtol=0)
        shifted = net(x[..., 8:228, 8:228]).logits
        assert (shifted - whole[..., 8:44, 8:44]).abs().max() > 1e-4  # the poolings pair other pixels there


def test_a_pixel_depends_on_what_the_smallest_tile_around_it_shows():
    net = tiny().double().eval()
    for parameter in net.parameters():  # no ReLU hides anything
        parameter.data.abs_()
    for place, rows in ((0, range(188)), (15, range(204)), (16, range(16, 204))):
        x = torch.rand(1, 3, 220, 220, dtype=torch.float64, requires_grad=True)
        net(x).logits[..., place, place].sum().backward()
        assert x.grad.any(3).any(1)[0].nonzero().ravel().tolist() == list(rows)


def test_weights_start_as_in_the_paper():
    net = unet_original(2, width=0.5)
    for conv in (
        m
        for m in net.modules()
        if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)) and m is not net.head
    ):
        inputs = conv.in_channels * (1 if isinstance(conv, torch.nn.ConvTranspose2d) else 9)
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.08)
        assert not conv.bias.any()


def test_the_last_two_levels_drop_out():
    encoder = tiny().encoder.train()
    x = torch.randn(1, 3, 188, 188)
    first, second = encoder(x), encoder(x)
    assert [torch.equal(one, other) for one, other in zip(first, second, strict=True)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    first, second = encoder.eval()(x), encoder(x)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_loss_is_of_the_inner_part():
    net, loss = tiny(dropout=0.0), CrossEntropy(None, IGNORE, aux_weight=0.4)
    x, target = torch.randn(1, 3, 204, 204), torch.randint(0, 3, (1, 204, 204), dtype=torch.uint8)
    output = net(x)
    total, weight = loss(output, target)
    assert weight == 20 * 20
    torch.testing.assert_close(
        total, F.cross_entropy(output.logits, target[:, 92:112, 92:112].long(), reduction="sum")
    )
    target[:, :92] = IGNORE
    assert torch.equal(loss(output, target)[0], total)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dropout": 1.0}, "model.dropout is 1.0"), ({"width": 0.0}, "model.width is 0.0")],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        MODEL.build({"name": "unet_original", **options}, out_channels=2)
