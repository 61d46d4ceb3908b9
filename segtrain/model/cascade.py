"""Cascaded atrous blocks (Chen et al. 2017, "Rethinking atrous convolution for semantic image segmentation",
sec. 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.model.output_stride import MultiGridOptions, StridedNetwork
from segtrain.model.parts.atrous import conv_norm_relu, head_of, initialise
from segtrain.options import key, with_options
from segtrain.sample import Output

UNITS = 3
"""Units of an added block, as in the last block of ResNet-50 and ResNet-101."""
OUTPUT_STRIDES = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Options(MultiGridOptions):
    """Options of the cascade."""

    output_stride: Literal[8, 16, 32, 64, 128, 256] = key(
        16,
        "side of the image divided by the side of the last features: 8, 16, 32, or, with added blocks that "
        "keep their stride, 64, 128, 256",
    )
    blocks: Literal[4, 5, 6, 7] = key(7, "number of the last block; the encoder ends with block 4")

    def __post_init__(self):
        allowed = OUTPUT_STRIDES[: self.blocks - 1]
        if self.output_stride not in allowed:
            raise ConfigError(
                f"model.output_stride is {self.output_stride}; allowed: {', '.join(map(str, allowed))} "
                f"(model.blocks={self.blocks})"
            )
        if self.multi_grid is not None and len(self.multi_grid) != UNITS:
            raise ConfigError(
                f"model.multi_grid is {list(self.multi_grid)}; allowed: null or {UNITS} integers from 1"
            )


@with_options(Options)
def cascade(options: Options, out_channels: int, in_channels: int = 3) -> Network:
    """Cascade: further copies of ResNet's last block, with ever larger dilation instead of strides.

    Chen et al. 2017. The logits come at the output stride. With 21 classes: 63 714 389 parameters on resnet50
    with block 7. The added blocks start as the identity (He et al. 2019, "Bag of tricks": the weight of their
    last batch normalisation is initialised with 0).
    """
    return Cascade(options, out_channels, in_channels).with_weights()


class Cascade(StridedNetwork):
    """B×K×H×W -> Output with logits at the output stride, for any H and W."""

    head_keys = ("head.weight", "head.bias")

    def __init__(self, options: Options, out_channels: int, in_channels: int):
        super().__init__(options, out_channels, in_channels, multi_grid=options.multi_grid)
        channels = self.encoder.channels[-1]
        self.blocks = nn.Sequential(
            *(_block(channels, 32 << index, options) for index in range(1, options.blocks - 3))
        )
        self.head = head_of(channels, out_channels)

    def forward(self, x: torch.Tensor) -> Output:
        return Output(self.head(self.blocks(self.encoder(x)[-1])), tuple(x.shape[-2:]))


def _block(channels: int, stride: int, options: Options) -> nn.Sequential:
    """The block whose features have `stride` in a network without atrous convolution."""
    rate = max(1, stride // options.output_stride)
    rates = [rate] * UNITS
    if options.multi_grid is not None:
        rates = [rate * factor for factor in options.multi_grid]
    elif options.contract_dilation:
        rates[0] = max(1, rate // 2)
    strides = [2 if stride <= options.output_stride else 1, *[1] * (UNITS - 1)]
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
