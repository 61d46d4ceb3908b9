"""FCN on dilated ResNets."""

import pytest
import torch

from segtrain.errors import ConfigError
from segtrain.model import MODEL
from segtrain.model.fcn import fcn
from segtrain.model.output_stride import at_output_stride

TINY = {"encoder": "test_resnet", "weights": "none"}


def count(**options) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in fcn(weights="none", **options).parameters())


@pytest.mark.parametrize(
    ("encoder", "plain", "with_aux"),
    [("resnet50", 32_957_013, 35_322_218), ("resnet101", 51_949_141, 54_314_346)],
)
def test_parameters_are_torchvisions(encoder, plain, with_aux):
    assert count(out_channels=21, encoder=encoder) == plain
    assert count(out_channels=19, encoder=encoder) == plain - 2 * 513
    assert count(out_channels=21, encoder=encoder, aux=True) == with_aux
    assert count(out_channels=19, encoder=encoder, aux=True) == with_aux - 2 * (513 + 257)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(33, 33), (64, 64), (65, 65), (97, 129)])
def test_logits_come_at_the_output_stride(stride, size):
    net = fcn(5, output_stride=stride, **TINY).eval()
    with torch.no_grad():
        output = net(torch.randn(1, 3, *size))
    assert output.logits.shape[-2:] == tuple(-(-side // stride) for side in size)
    assert output.upsampled().shape == (1, 5, *size)


def test_twin_at_another_output_stride_shares_the_weights():
    net = fcn(5, aux=True, **TINY)
    twin = at_output_stride(net, 32)
    assert twin.aux.logits.weight is net.aux.logits.weight
    x = torch.randn(2, 3, 65, 65)
    assert [n(x).logits.shape[-1] for n in (net, twin)] == [9, 3]


def test_auxiliary_head_answers_in_training_only():
    net = fcn(5, aux=True, **TINY)
    x = torch.randn(2, 3, 64, 64)
    assert [logits.shape for logits in net(x).aux] == [(2, 5, 8, 8)]
    assert net.eval()(x).aux == () and fcn(5, **TINY)(x).aux == ()
    assert net.head_keys == ("head.logits.weight", "head.logits.bias", "aux.logits.weight", "aux.logits.bias")


def test_impossible_dropout_is_refused():
    with pytest.raises(ConfigError, match=r"model\.dropout is 1"):
        MODEL.build({"name": "fcn", **TINY, "dropout": 1.0}, out_channels=5)
