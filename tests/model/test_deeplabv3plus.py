"""DeepLabv3+."""

import math

import pytest
import torch

from segtrain.errors import ConfigError
from segtrain.model import MODEL
from segtrain.model.deeplabv3plus import deeplabv3plus
from segtrain.model.output_stride import at_output_stride
from segtrain.model.parts.aspp import rates_at

TINY = {
    "encoder": "test_resnet",
    "weights": "none",
    "aspp_width": 16,
    "low_level_width": 8,
    "decoder_width": 16,
}


def count(**options) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in deeplabv3plus(weights="none", **options).parameters())


@pytest.mark.parametrize(
    ("options", "resnet50", "resnet101"),
    [
        ({"decoder_convs": 1}, 39_761_845, 58_753_973),
        ({}, 40_352_181, 59_344_309),
        ({"separable": True}, 26_696_133, 45_688_261),
        ({"separable": True, "separable_form": "plain", "decoder_convs": 1}, 26_614_373, 45_606_501),
        (
            {"separable": True, "separable_form": "plain", "decoder_convs": 1, "aspp_conv": True},
            26_682_725,
            45_674_853,
        ),
    ],
)
def test_parameters_are_the_papers(options, resnet50, resnet101):
    assert count(out_channels=21, **options) == resnet50
    assert count(out_channels=19, **options) == resnet50 - 2 * 257
    assert count(out_channels=21, encoder="resnet101", **options) == resnet101


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"encoder": "xception65", "separable": True}, 41_055_413),
        (
            {
                "encoder": "xception65",
                "separable": True,
                "separable_form": "plain",
                "decoder_convs": 1,
                "aspp_conv": True,
            },
            41_042_005,
        ),
        ({"encoder": "mobilenetv2_100", "decoder_convs": 1}, 5_225_717),
    ],
)
def test_parameters_on_other_encoders_are_the_published_ones(options, parameters):
    assert count(out_channels=21, **options) == parameters


@pytest.mark.parametrize("encoder", ["xception65", "mobilenetv2_100", "resnet50", "tf_efficientnet_lite0"])
def test_low_level_features_of_every_encoder_are_a_quarter_rounded_up(encoder):
    with torch.device("meta"):
        net = deeplabv3plus(5, encoder=encoder, weights="none").eval()
        for size in ((33, 33), (64, 65), (97, 129)):
            assert net(torch.empty(1, 3, *size)).logits.shape[-2:] == tuple(
                math.ceil(side / 4) for side in size
            )


def test_low_level_features_of_xception_are_those_of_the_papers_tap():
    """entry_flow/block2, behind its second separable convolution."""
    with torch.device("meta"):
        net = deeplabv3plus(5, encoder="xception65", weights="none")
    info = net.encoder.feature_info[net.low_index]
    assert net.low_level[0].in_channels == info["num_chs"] == 256 and info["module"] == "blocks.1.stack.act3"


def test_dilation_of_the_encoder_follows_the_options():
    with torch.device("meta"):
        smp, grid = (
            deeplabv3plus(5, weights="none", **options)
            for options in ({"contract_dilation": False}, {"multi_grid": (1, 2, 4)})
        )
    assert [unit.conv2.dilation[0] for unit in smp.encoder.layer4] == [2, 2, 2]
    assert [unit.conv2.dilation[0] for unit in grid.encoder.layer4] == [2, 4, 8]
    assert smp.options.at(8).contract_dilation is False and grid.options.at(8).multi_grid == (1, 2, 4)


def test_corners_are_aligned_where_they_are_asked_to():
    torch.manual_seed(0)
    net = deeplabv3plus(5, align_corners=True, middle_width=8, fine_width=8, **TINY).eval()
    plain = deeplabv3plus(5, middle_width=8, fine_width=8, **TINY).eval()
    plain.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        output, other = net(x), plain(x)
    assert output.align_corners and not other.align_corners
    assert not torch.allclose(output.logits, other.logits)
    torch.testing.assert_close(output.upsampled()[..., 0, 0], output.logits[..., 0, 0])


def test_features_of_stride_eight_join_the_pyramid():
    """By hand for ResNet-50: 1x1 from 512 channels to 64, then 3x3 from 256 + 64 to 256, each with batch
    normalisation."""
    assert (
        count(out_channels=21, middle_width=64) - count(out_channels=21)
        == 512 * 64 + 2 * 64 + 9 * (256 + 64) * 256 + 2 * 256
    )
    torch.manual_seed(0)
    net = deeplabv3plus(5, middle_width=8, **TINY).eval()
    features = []
    net.middle.register_forward_hook(lambda _, inputs, output: features.extend([*inputs, output]))
    with torch.no_grad():
        net(torch.randn(1, 3, 65, 65))
        high, fine, joined = features
        assert [x.shape[-1] for x in (high, fine, joined)] == [5, 9, 9]
        moved, blind = net.middle(high, fine + 1), net.middle(high + 1, fine)
    assert not torch.allclose(joined, moved) and not torch.allclose(joined, blind)
    twin = at_output_stride(net, 8)
    assert (
        list(twin.state_dict()) == list(net.state_dict())
        and twin(torch.randn(1, 3, 65, 65)).logits.shape[-1] == 17
    )


def test_head_without_the_norm_between_has_the_published_size():
    dense, plain, tf = (
        count(out_channels=21, separable=s, separable_form=f)
        for s, f in [(False, "tf"), (True, "plain"), (True, "tf")]
    )
    assert dense > tf > plain
    between = 2 * (3 * 2048 + 304 + 256)
    assert tf - plain == between


def test_rates_cover_the_same_pixels_at_every_output_stride():
    assert [rates_at(stride) for stride in (8, 16, 32)] == [(12, 24, 36), (6, 12, 18), (3, 6, 9)]


def test_rates_find_their_way_back():
    with torch.device("meta"):
        net = deeplabv3plus(5, rates=(5, 7, 9), **TINY)
    coarse = at_output_stride(net, 32)
    assert coarse.options.rates == (2, 3, 4) and at_output_stride(coarse, 8).options.rates == (10, 14, 18)
    assert at_output_stride(coarse, 16).options == net.options and net.options.rates == (5, 7, 9)


@pytest.mark.parametrize("rates", [None, (2, 4)])
def test_output_stride_can_be_changed_without_touching_weights(rates):
    net = deeplabv3plus(5, rates=rates, **TINY).eval()
    twin = at_output_stride(net, 8)
    dilations = [branch[0].dilation[0] for branch in list(twin.aspp.branches)[1:-1]]
    assert dilations == ([12, 24, 36] if rates is None else [4, 8])
    assert list(twin.state_dict()) == list(net.state_dict())
    x = torch.randn(1, 3, 65, 65)
    assert [n.encoder(x)[-1].shape[-1] for n in (net, twin)] == [5, 9]
    assert twin(x).logits.shape == net(x).logits.shape


@pytest.mark.parametrize("size", [(33, 33), (64, 65), (97, 129)])
def test_low_level_features_and_logits_come_at_a_quarter_rounded_up(size):
    net = deeplabv3plus(5, **TINY).eval()
    with torch.no_grad():
        output = net(torch.randn(1, 3, *size))
    assert output.logits.shape[-2:] == tuple(math.ceil(side / 4) for side in size)
    assert output.upsampled().shape == (1, 5, *size)


def test_without_image_pooling_distant_pixels_do_not_matter():
    x = torch.randn(1, 3, 256, 32)
    changed = x.clone()
    changed[..., 192:, :] += 1
    for pooling in (True, False):
        torch.manual_seed(0)
        net = deeplabv3plus(
            5, rates=(1,), image_pooling=pooling, **{**TINY, "encoder": "resnet10t", "output_stride": 8}
        ).eval()
        with torch.no_grad():
            near, far = (net(image).logits[..., :4, :] for image in (x, changed))
        assert torch.equal(near, far) != pooling


def test_encoder_without_features_of_stride_four_is_refused():
    with pytest.raises(ConfigError, match="output stride 16"):
        deeplabv3plus(5, encoder="vgg16", weights="none")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rates", (0,)),
        ("aspp_width", 0),
        ("decoder_convs", 0),
        ("middle_width", 0),
        ("fine_width", 0),
        ("dropout", 1.5),
        ("output_stride", 12),
    ],
)
def test_impossible_options_are_refused(option, value):
    with pytest.raises(ConfigError, match=rf"model\.{option}(\[0\])? is"):
        MODEL.build({"name": "deeplabv3plus", **TINY, option: value}, out_channels=5)
