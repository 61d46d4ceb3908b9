"""DeepLabv3."""

import pytest
import torch

from segtrain.errors import ConfigError
from segtrain.model import MODEL
from segtrain.model.deeplabv3 import deeplabv3
from segtrain.model.output_stride import at_output_stride

TINY = {"encoder": "test_resnet", "weights": "none", "aspp_width": 16}


def count(**options) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in deeplabv3(weights="none", **options).parameters())


@pytest.mark.parametrize(
    ("encoder", "plain", "with_aux", "aux_class"),
    [
        ("resnet50", 39_638_869, 42_004_074, 257),
        ("resnet101", 58_630_997, 60_996_202, 257),
        ("mobilenetv3_large_100", 11_025_477, 11_029_328, 11),
    ],
)
def test_parameters_are_torchvisions(encoder, plain, with_aux, aux_class):
    options = {"encoder": encoder, "head": "torchvision"}
    assert count(out_channels=21, **options) == plain
    assert count(out_channels=19, **options) == plain - 2 * 257
    assert count(out_channels=21, aux=True, **options) == with_aux
    assert count(out_channels=19, aux=True, **options) == with_aux - 2 * (257 + aux_class)


def test_parameters_of_the_papers_head_and_of_mobilenetv2():
    assert count(out_channels=21) == 23_508_032 + 15_540_501
    assert count(out_channels=21, encoder="mobilenetv2_100", head="torchvision") == 5_113_877


@pytest.mark.parametrize("options", [{}, {"multi_grid": (1, 2, 4)}, {"contract_dilation": False}])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_dilation_changes_no_parameter(options, stride):
    assert count(out_channels=21, output_stride=stride, **options) == 39_048_533


def test_best_form_of_the_paper_has_its_rates():
    with torch.device("meta"):
        for stride, last, rates in ((16, [2, 4, 8], [6, 12, 18]), (8, [4, 8, 16], [12, 24, 36])):
            net = deeplabv3(21, weights="none", output_stride=stride, multi_grid=(1, 2, 4))
            assert [unit.conv2.dilation[0] for unit in net.encoder.layer4] == last
            assert [branch[0].dilation[0] for branch in list(net.aspp.branches)[1:-1]] == rates


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(33, 33), (64, 64), (65, 65), (97, 129)])
def test_logits_come_at_the_output_stride(stride, size):
    net = deeplabv3(5, output_stride=stride, **TINY).eval()
    with torch.no_grad():
        output = net(torch.randn(1, 3, *size))
    assert output.logits.shape[-2:] == tuple(-(-side // stride) for side in size)
    assert output.upsampled().shape == (1, 5, *size) and output.aux == ()


@pytest.mark.parametrize("rates", [None, (2, 4)])
def test_output_stride_can_be_changed_without_touching_weights(rates):
    net = deeplabv3(5, rates=rates, aux=True, multi_grid=(1,), **TINY).eval()
    twin = at_output_stride(net, 8)
    assert [branch[0].dilation[0] for branch in list(twin.aspp.branches)[1:-1]] == (
        [12, 24, 36] if rates is None else [4, 8]
    )
    mine, its = net.state_dict(keep_vars=True), twin.state_dict(keep_vars=True)
    assert list(mine) == list(its) and all(mine[key] is its[key] for key in mine)
    x = torch.randn(1, 3, 65, 65)
    assert [n(x).logits.shape[-1] for n in (net, twin)] == [5, 9]


def test_rates_find_their_way_back():
    with torch.device("meta"):
        net = deeplabv3(5, rates=(5, 7, 9), **TINY)
    coarse = at_output_stride(net, 32)
    assert coarse.options.rates == (2, 3, 4) and at_output_stride(coarse, 8).options.rates == (10, 14, 18)
    assert at_output_stride(coarse, 16).options == net.options and net.options.rates == (5, 7, 9)


def test_without_image_pooling_a_finer_grid_holds_the_coarser_one():
    torch.manual_seed(0)
    options = {"encoder": "resnet18", "weights": "none", "aspp_width": 16}
    for pooling in (False, True):
        net = deeplabv3(5, image_pooling=pooling, **options).double().eval()
        x = torch.randn(1, 3, 65, 65, dtype=torch.double)
        with torch.no_grad():
            coarse, fine = net(x).logits, at_output_stride(net, 8)(x).logits[..., ::2, ::2]
        assert torch.allclose(coarse, fine, atol=1e-12, rtol=1e-9) != pooling


def test_auxiliary_head_answers_in_training_only():
    net = deeplabv3(5, aux=True, **TINY)
    x = torch.randn(2, 3, 64, 64)
    output = net(x)
    assert [logits.shape for logits in output.aux] == [(2, 5, 4, 4)]
    (output.logits.sum() + output.aux[0].sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in net.aux.parameters() if p.ndim == 4)
    assert net.eval()(x).aux == ()
    assert net.head_keys == ("head.weight", "head.bias", "aux.logits.weight", "aux.logits.bias")


def test_single_image_is_told_about_image_pooling():
    from segtrain.model.parts.norm import check_batch

    with pytest.raises(ConfigError, match=r"model\.image_pooling=false"):
        check_batch(deeplabv3(3, **TINY), 1, 3, 128, 128)


@pytest.mark.parametrize(
    ("option", "value"), [("rates", (0,)), ("aspp_width", 0), ("dropout", 1.0), ("output_stride", 4)]
)
def test_impossible_options_are_refused(option, value):
    with pytest.raises(ConfigError, match=rf"model\.{option}(\[0\])? is"):
        MODEL.build({"name": "deeplabv3", **TINY, option: value}, out_channels=5)
