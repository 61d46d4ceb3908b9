"""Atrous and separable convolution, and the pyramid made of them."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from segtrain.model.parts.aspp import ASPP
from segtrain.model.parts.atrous import conv_norm_relu
from segtrain.model.parts.separable import separable


def weights_in(module) -> int:
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, torch.nn.Conv2d))


def test_weights_of_a_5x5_from_3_to_256_channels():
    assert weights_in(conv_norm_relu(3, 256, 5)) == 19_200
    assert weights_in(separable(3, 256, 5)) == 75 + 768


def test_order_of_the_three_forms():
    orders = {
        form: [type(part).__name__ for part in separable(4, 8, form=form)]
        for form in ("tf", "xception", "plain")
    }
    assert orders == {
        "tf": ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU"],
        "xception": ["ReLU", "Conv2d", "BatchNorm2d", "Conv2d", "BatchNorm2d"],
        "plain": ["Conv2d", "Conv2d", "BatchNorm2d", "ReLU"],
    }


@pytest.mark.parametrize("rate", [1, 3])
def test_plain_form_is_a_dense_convolution_of_rank_one(rate):
    module = separable(4, 6, rate=rate, form="plain").double()
    depthwise, pointwise = module[0], module[1]
    kernel = pointwise.weight * depthwise.weight[:, 0][None]
    x = torch.randn(2, 4, 17, 13).double()
    dense = F.conv2d(x, kernel, padding=rate, dilation=rate)
    torch.testing.assert_close(pointwise(depthwise(x)), dense, atol=1e-12, rtol=0)


def test_identity_as_pointwise_leaves_the_depthwise_convolution():
    module = separable(4, 4, form="plain").double()
    torch.nn.init.dirac_(module[1].weight)
    x = torch.randn(1, 4, 9, 9).double()
    torch.testing.assert_close(module[1](module[0](x)), module[0](x))


def test_atrous_is_an_ordinary_convolution_on_every_phase():
    rate, conv = 3, conv_norm_relu(2, 3, rate=3)[0].double()
    x = torch.randn(1, 2, 12, 15).double()
    y = conv(x)
    for i in range(rate):
        for j in range(rate):
            phase = F.conv2d(x[..., i::rate, j::rate], conv.weight, padding=1)
            torch.testing.assert_close(y[..., i::rate, j::rate], phase, atol=1e-12, rtol=0)


def test_atrous_equals_a_kernel_with_holes_and_at_last_its_centre():
    conv = conv_norm_relu(2, 3, rate=2)[0].double()
    holes = torch.zeros(3, 2, 5, 5).double()
    holes[..., ::2, ::2] = conv.weight
    x = torch.randn(1, 2, 9, 9).double()
    torch.testing.assert_close(conv(x), F.conv2d(x, holes, padding=2), atol=1e-12, rtol=0)
    wide = conv_norm_relu(2, 3, rate=9)[0].double()
    small = torch.randn(1, 2, 5, 5).double()
    torch.testing.assert_close(wide(small), F.conv2d(small, wide.weight[..., 1:2, 1:2]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("conv", [conv_norm_relu, partial(separable, form="tf")])
def test_pyramid_at_twice_the_rates_on_a_twice_finer_grid(conv):
    coarse, fine = (ASPP(6, 4, rates, True, 0.0, conv).double().eval() for rates in ((2, 3), (4, 6)))
    fine.load_state_dict(coarse.state_dict())
    x = torch.randn(1, 6, 16, 16).double()
    for a, b in list(zip(coarse.branches, fine.branches, strict=True))[:-1]:
        torch.testing.assert_close(b(x)[..., ::2, ::2], a(x[..., ::2, ::2]), atol=1e-12, rtol=0)
    pooled, pooled_coarse = fine.branches[-1](x), coarse.branches[-1](x[..., ::2, ::2])
    assert not torch.allclose(pooled[..., ::2, ::2], pooled_coarse), "means over two grids differ"


def test_pyramid_has_the_published_number_of_parameters():
    with torch.device("meta"):
        dense = ASPP(2048, 256, (6, 12, 18), True, 0.1, conv_norm_relu)
        tf, plain = (
            ASPP(2048, 256, (6, 12, 18), True, 0.1, partial(separable, form=form)) for form in ("tf", "plain")
        )
    assert [sum(p.numel() for p in module.parameters()) for module in (dense, tf, plain)] == [
        15_535_104,
        3_019_776,
        3_007_488,
    ]


def test_image_pooling_is_bilinear_upsampling_of_one_pixel():
    pooling = ASPP(6, 4, (1,), True, 0.0, conv_norm_relu).eval().branches[-1]
    x = torch.randn(2, 6, 5, 7)
    pixel = pooling.project(F.adaptive_avg_pool2d(x, 1))
    torch.testing.assert_close(pooling(x), F.interpolate(pixel, size=(5, 7), mode="bilinear"))
