"""Cascaded blocks after a ResNet."""

import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model import MODEL
from segtrain.model.cascade import OUTPUT_STRIDES, cascade
from segtrain.model.output_stride import at_output_stride

TINY = {"encoder": "test_resnet", "weights": "none"}


def made(stride: int, **options) -> nn.Module:
    with torch.device("meta"):
        return cascade(21, weights="none", output_stride=stride, **options)


def rates(net) -> list[list[int]]:
    """Of the 3×3 convolutions of block 4 and those added."""
    return [
        [unit.conv2.dilation[0] for unit in net.encoder.layer4],
        *([unit.conv[0].dilation[0] for unit in block] for block in net.blocks),
    ]


def count(net) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("blocks", [4, 5, 6, 7])
def test_every_added_block_has_the_published_size(blocks):
    with torch.device("meta"):
        for classes, head in ((21, 43_029), (19, 38_931)):
            net = cascade(classes, weights="none", blocks=blocks)
            assert count(net.encoder) + count(net.blocks) == 23_508_032 + (blocks - 4) * 13_387_776
            assert count(net) - count(net.encoder) - count(net.blocks) == head


def test_trunk_with_block_7_has_the_published_size():
    net = made(16)
    assert count(net.encoder) + count(net.blocks) == 63_671_360


@pytest.mark.parametrize(
    ("stride", "base"),
    [(8, [4, 8, 16, 32]), (16, [2, 4, 8, 16]), (32, [1, 2, 4, 8]), (64, [1, 1, 2, 4]), (256, [1, 1, 1, 1])],
)
def test_rates_double_from_block_to_block(stride, base):
    assert rates(made(stride, contract_dilation=False)) == [[rate] * 3 for rate in base]
    assert rates(made(stride, multi_grid=(1, 1, 1))) == [[rate] * 3 for rate in base]
    assert rates(made(stride, multi_grid=(1, 2, 1))) == [[rate, 2 * rate, rate] for rate in base]
    assert rates(made(stride)) == [[max(1, rate // 2), rate, rate] for rate in base]


def test_padding_is_the_rate():
    for block in made(16, multi_grid=(1, 2, 4)).blocks:
        assert all(unit.conv[0].padding == unit.conv[0].dilation for unit in block)


@pytest.mark.parametrize("stride", OUTPUT_STRIDES)
@pytest.mark.parametrize("size", [(33, 33), (64, 64), (65, 65), (97, 129)])
def test_logits_come_at_the_output_stride(stride, size):
    with torch.device("meta"):
        output = cascade(5, output_stride=stride, **TINY).eval()(torch.empty(1, 3, *size))
    assert output.logits.shape[-2:] == tuple(-(-side // stride) for side in size)


def awake(net: nn.Module) -> nn.Module:
    """The added blocks start as the identity; here they compute."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    return net


@pytest.mark.parametrize("blocks", [5, 7])
def test_subsampled_logits_are_those_of_the_cascade_with_strides(blocks):
    """Without atrous convolution block 7 ends at stride 256; every finer output stride computes the same on a
    finer grid."""
    torch.manual_seed(0)
    coarsest = 32 << (blocks - 4)
    net = (
        awake(cascade(5, output_stride=coarsest, blocks=blocks, encoder="resnet18", weights="none"))
        .double()
        .eval()
    )
    x = torch.randn(1, 3, 33, 2 * coarsest + 1, dtype=torch.double)
    with torch.no_grad():
        expected = net(x).logits
        for stride in (s for s in OUTPUT_STRIDES if s < coarsest):
            step = coarsest // stride
            logits = at_output_stride(net, stride)(x).logits[..., ::step, ::step]
            torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)
        other = cascade(
            5, output_stride=16, blocks=blocks, encoder="resnet18", weights="none", contract_dilation=False
        )
        other.double().eval().load_state_dict(net.state_dict())
        assert not torch.allclose(
            other(x).logits[..., :: coarsest // 16, :: coarsest // 16], expected, rtol=1e-3
        )


def test_added_blocks_start_as_the_identity():
    torch.manual_seed(0)
    net, x = cascade(5, **TINY).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = net.encoder(x)[-1]
        torch.testing.assert_close(net.blocks(features), features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_stride": 64, "blocks": 4}, r"output_stride is 64; allowed: 8, 16, 32 \(model.blocks=4\)"),
        ({"output_stride": 4}, "output_stride is 4; allowed: 8, 16, 32, 64, 128, 256"),
        ({"multi_grid": (1, 2)}, "multi_grid is .1, 2.; allowed: null or 3 integers"),
        ({"multi_grid": (1, 2, 0)}, r"multi_grid\[2\] is 0; allowed: from 1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        MODEL.build({"name": "cascade", **TINY, **options}, out_channels=5)
