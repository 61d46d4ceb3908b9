"""The padded U-Net with batch normalisation."""

import pytest
import torch

from segtrain.errors import ConfigError
from segtrain.model.parts.sides import check_sides
from segtrain.model.unet_padded import Up, _padded, unet_padded


@pytest.mark.parametrize(
    ("bilinear", "parameters"),
    [
        (False, {1: 31_037_633, 2: 31_037_698, 19: 31_038_803, 21: 31_038_933}),
        (True, {1: 17_262_977, 2: 17_263_042, 21: 17_264_277}),
    ],
)
def test_parameters_are_those_of_the_widespread_form(bilinear, parameters):
    for classes, expected in parameters.items():
        with torch.device("meta"):
            assert sum(p.numel() for p in unet_padded(classes, bilinear=bilinear).parameters()) == expected


@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (33, 50), (31, 47), (64, 129)])
def test_logits_at_the_images_size(size, bilinear):
    output = unet_padded(3, width=0.05, bilinear=bilinear).eval()(torch.randn(1, 3, *size))
    assert output.logits.shape == (1, 3, *size) and output.size == size


def test_the_odd_row_and_column_are_added_at_the_end():
    x = torch.ones(1, 1, 2, 2)
    found = _padded(x, 3, 5)[0, 0]
    assert found.tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert torch.equal(_padded(x, 2, 2), x)


def test_interpolation_keeps_the_corners():
    x = torch.tensor([[[[0.0, 3.0], [6.0, 9.0]]]])
    found = Up(1, 1, bilinear=True)(x)[0, 0]
    torch.testing.assert_close(
        found, torch.tensor([0.0, 2.0, 4.0, 6.0])[:, None] + torch.tensor([0.0, 1.0, 2.0, 3.0])
    )


def test_small_images_are_refused():
    net = unet_padded(3, width=0.05)
    with pytest.raises(ConfigError, match=r"15x40 px.*sides from 16 px"):
        net(torch.randn(1, 3, 15, 40))
    with pytest.raises(
        ConfigError, match=r"8x8 px.*sides from 16 px.*augmentation\.warp\.size"
    ):  # before the first training step
        check_sides(net, 8, 8)
    check_sides(net, 16, 17)


@pytest.mark.parametrize("bilinear", [False, True])
def test_gradient_reaches_every_parameter(bilinear):
    net = unet_padded(3, width=0.05, bilinear=bilinear).train()
    net(torch.randn(2, 3, 64, 64)).logits.square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
