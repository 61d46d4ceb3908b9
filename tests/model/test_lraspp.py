"""LR-ASPP."""

import pytest
import torch

from segtrain.errors import ConfigError
from segtrain.model import MODEL
from segtrain.model.deeplabv3 import deeplabv3
from segtrain.model.encoder.tap import tap_at, tapped
from segtrain.model.encoder.timm_encoder import encoder_of
from segtrain.model.lraspp import lraspp
from segtrain.model.output_stride import at_output_stride

TINY = {"encoder": "mobilenetv3_small_050", "weights": "none"}


def test_parameters_are_torchvisions():
    with torch.device("meta"):
        for classes, expected in ((21, 3_221_538), (19, 3_221_538 - 2 * (40 + 128 + 2))):
            assert sum(p.numel() for p in lraspp(classes, weights="none").parameters()) == expected


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(33, 33), (64, 64), (65, 65), (97, 129)])
def test_logits_come_at_stride_8(stride, size):
    net = lraspp(5, output_stride=stride, **TINY).eval()
    with torch.no_grad():
        output = net(torch.randn(1, 3, *size))
    assert output.logits.shape[-2:] == tuple(-(-side // 8) for side in size)
    assert output.upsampled().shape == (1, 5, *size)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv3_large_100",
        "mobilenetv3_small_050",
        "resnet18",
        "mobilenetv2_100",
        "mobilenetv4_conv_small_035",
        "lcnet_035",
    ],
)
@pytest.mark.parametrize("stride", [8, 16])
def test_tap_has_its_stride_and_the_last_features_are_the_encoders(name, stride):
    torch.manual_seed(0)
    encoder = encoder_of(name, 3, stride).eval()
    x = torch.randn(1, 3, 65, 64)
    tap = tap_at(encoder, name, 8)
    with torch.no_grad():
        finer, last = tapped(encoder, x, tap)
        features = encoder(x)
    assert torch.equal(last, features[-1])
    assert finer.shape == features[tap.index].shape and finer.shape[-2:] == (9, 8)
    assert torch.equal(finer, features[tap.index]) != name.startswith("mobilenetv3"), (
        "of a stage with several blocks the first"
    )


@pytest.mark.parametrize(
    "name", ["mobilenetv4_conv_aa_medium", "mobilenetv4_conv_blur_medium", "mobilenetv4_conv_small_050"]
)
def test_mobilenets_that_stride_in_other_places(name):
    with torch.device("meta"):
        nets = [lraspp(5, encoder=name, weights="none"), deeplabv3(5, encoder=name, weights="none", aux=True)]
        low, deep = (net(torch.empty(2, 3, 64, 64)) for net in nets)
    assert [logits.shape[-2:] for logits in (low.logits, deep.logits, *deep.aux)] == [(8, 8), (4, 4), (4, 4)]


def test_twin_at_another_output_stride_shares_the_weights():
    net = lraspp(5, **TINY)
    twin = at_output_stride(net, 8)
    assert twin.low_head.weight is net.low_head.weight
    assert twin.encoder.blocks[-1][0].conv.weight is net.encoder.blocks[-1][0].conv.weight


def test_impossible_width_is_refused():
    with pytest.raises(ConfigError, match=r"model\.width is 0"):
        MODEL.build({"name": "lraspp", **TINY, "width": 0}, out_channels=5)
