"""Cascaded atrous blocks (Chen et al. 2017, "Rethinking atrous convolution for semantic image segmentation",
sec. 3.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.atrous import conv_norm_relu, head_of, initialise
from segtrain.model.encoder import encoder_of
from segtrain.model.network import Network
from segtrain.model.weights import load_encoder_weights
from segtrain.sample import Output

UNITS = 3
"""Units of an added block, as in the last block of ResNet-50 and ResNet-101."""
OUTPUT_STRIDES = (8, 16, 32, 64, 128, 256)


def cascade(
    out_channels: int,
    in_channels: int = 3,
    encoder: str = "resnet50",
    weights: str = "imagenet",
    output_stride: int = 16,
    blocks: Literal[4, 5, 6, 7] = 7,
    contract_dilation: bool = True,
    multi_grid: tuple[int, ...] | None = None,
) -> Network:
    """Cascade: further copies of ResNet's last block, with ever wider dilation in place of strides.

    Chen et al. 2017. The logits come at the output stride. With 21 classes: 63 714 389 parameters on resnet50
    with block 7. The added blocks start as the identity (He et al. 2019, "Bag of tricks": their last
    normalisation begins at 0).

    Options:
        encoder: one of timm's names that takes an output stride (`segtrain list encoders`)
        weights: what the encoder starts from: imagenet, none, or the path of a .safetensors or .pth file
        output_stride: how much smaller than the image the last features are: 8, 16, 32, or, with fewer
            dilated blocks, 64, 128, 256
        blocks: number of the last block; the encoder ends with block 4
        contract_dilation: let the first convolution of a block without its stride keep the dilation of the
            block before, so that every output stride computes the same function (not with squeeze-excitation
            or anti-aliasing, nor tf_ encoders at even sizes and ConvNeXt at 8); false gives a block one
            dilation
        multi_grid: factors of the dilation of the three units of the encoder's last block and of each added
            one, the paper's are [1, 2, 1]; null follows contract_dilation
    """
    net = Cascade(
        Recipe(out_channels, in_channels, encoder, output_stride, blocks, contract_dilation, multi_grid)
    )
    net.normalisation, net.weights_report = load_encoder_weights(net.encoder, encoder, weights, in_channels)
    return net


@dataclass(frozen=True)
class Recipe:
    """All that decides the shape of the network and what it computes."""

    out_channels: int
    in_channels: int
    encoder: str
    output_stride: int
    blocks: int
    contract_dilation: bool
    multi_grid: tuple[int, ...] | None

    def __post_init__(self):
        allowed = OUTPUT_STRIDES[: self.blocks - 1]
        if self.output_stride not in allowed:
            raise ConfigError(
                f"model.output_stride is {self.output_stride}; allowed: {', '.join(map(str, allowed))} "
                f"(model.blocks={self.blocks})"
            )
        if self.multi_grid is not None and (len(self.multi_grid) != UNITS or min(self.multi_grid) < 1):
            raise ConfigError(
                f"model.multi_grid is {list(self.multi_grid)}; allowed: null or {UNITS} integers from 1"
            )

    def at(self, output_stride: int) -> Recipe:
        return replace(self, output_stride=output_stride)


class Cascade(Network):
    """B×K×H×W -> Output with logits at the output stride, for any H and W."""

    head_keys = ("head.weight", "head.bias")
    """The tensors whose first dimension is the classes."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.options = recipe
        self.encoder = encoder_of(
            recipe.encoder,
            recipe.in_channels,
            min(recipe.output_stride, 32),
            recipe.contract_dilation,
            recipe.multi_grid,
        )
        channels = self.encoder.channels[-1]
        self.blocks = nn.Sequential(
            *(_block(channels, 32 << index, recipe) for index in range(1, recipe.blocks - 3))
        )
        self.head = head_of(channels, recipe.out_channels)

    def forward(self, x: torch.Tensor) -> Output:
        return Output(self.head(self.blocks(self.encoder(x)[-1])), tuple(x.shape[-2:]))


def _block(channels: int, stride: int, recipe: Recipe) -> nn.Sequential:
    """The block whose features have `stride` in a network without atrous convolution."""
    rate = max(1, stride // recipe.output_stride)
    rates = [rate] * UNITS
    if recipe.multi_grid is not None:
        rates = [rate * factor for factor in recipe.multi_grid]
    elif recipe.contract_dilation:
        rates[0] = max(1, rate // 2)
    strides = [2 if stride <= recipe.output_stride else 1, *[1] * (UNITS - 1)]
    return nn.Sequential(*(Bottleneck(channels, step, one) for step, one in zip(strides, rates, strict=True)))


class Bottleneck(nn.Module):
    """B×D×h×w -> B×D×ceil(h/stride)×ceil(w/stride): 1×1 to a quarter of the channels, 3×3, 1×1 back, added to
    the input."""

    def __init__(self, channels: int, stride: int, rate: int):
        super().__init__()
        self.stride, width = stride, max(1, channels // 4)
        self.reduce = conv_norm_relu(channels, width, 1)
        self.conv = conv_norm_relu(width, width, 3, rate)
        self.conv[0].stride = (stride, stride)
        self.expand = nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels))
        initialise(self)
        nn.init.zeros_(self.expand[1].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x[..., :: self.stride, :: self.stride] + self.expand(self.conv(self.reduce(x))))
