"""U-Net with the paper's channels, but padded and with batch normalisation, so that logits come at the
image's own size."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.model.encoder.vgg import WIDTH, scaled
from segtrain.model.encoder.weights import IMAGENET, adapted
from segtrain.model.network import Network
from segtrain.model.parts.atrous import conv_norm_relu, head_of, initialise
from segtrain.model.parts.sides import check_sides
from segtrain.sample import Output

CHANNELS = 64
"""Of the first level; each level below has twice as many."""
POOLINGS = 4


def unet_padded(
    out_channels: int,
    in_channels: int = 3,
    width: Annotated[float, WIDTH] = 1.0,
    bilinear: bool = False,
) -> Network:
    """U-Net with the channels of the paper, padded convolutions and batch normalisation: logits at the
    image's own size.

    The widespread form of Ronneberger et al. 2015. Three channels and 21 classes: 31 038 933 parameters,
    bilinear 17 264 277.

    Options:
        width: channels of every layer as a share of the paper's 64, 128, 256, 512 and 1024
        bilinear: double the resolution by interpolation (corners aligned) in place of learnt up-convolutions;
            the lowest level and the decoder then have half the channels
    """
    net = UNetPadded(out_channels, in_channels, width=width, bilinear=bilinear)
    net.normalisation = adapted(IMAGENET, in_channels)
    net.weights_report = "padded U-Net: starts from scratch (it has no published weights)"
    return net


class UNetPadded(Network):
    """B×K×H×W -> Output with B×C×H×W logits, for any H and W from 16 on."""

    head_keys = ("head.weight", "head.bias")
    tile_sides = (2**POOLINGS, 1)

    def __init__(self, out_channels: int, in_channels: int, width: float, bilinear: bool):
        super().__init__()
        channels = [scaled(CHANNELS, width) << level for level in range(POOLINGS + 1)]
        # An up-convolution halves the channels, interpolation keeps them: then the output of every level has
        # half as many. In both forms the two halves of each concatenation have the same number of channels.
        share = 2 if bilinear else 1
        decoder = [*(c // share for c in channels[:0:-1]), channels[0]]
        channels[-1] = decoder[0]
        self.encoder = ContractingPath(in_channels, channels)
        self.ups = nn.ModuleList(
            Up(source, source if bilinear else source // 2, bilinear) for source in decoder[:-1]
        )
        self.blocks = nn.ModuleList(
            _two_convs(2 * skip, skip, out) for skip, out in zip(channels[-2::-1], decoder[1:], strict=True)
        )
        initialise(self)
        self.head = head_of(channels[0], out_channels)

    def forward(self, x: torch.Tensor) -> Output:
        size = tuple(x.shape[-2:])
        check_sides(self, *size)
        *skips, y = self.encoder(x)
        for up, block, skip in zip(self.ups, self.blocks, reversed(skips), strict=True):
            y = block(torch.cat([skip, _padded(up(y), *skip.shape[-2:])], dim=1))
        return Output(self.head(y), size)


class ContractingPath(nn.Module):
    """B×K×H×W -> the features of the five levels, finest first; 2×2 max pooling between levels, which drops
    odd rows and columns."""

    def __init__(self, in_channels: int, channels: list[int]):
        super().__init__()
        pairs = zip((in_channels, *channels), channels, strict=False)
        self.levels = nn.ModuleList(_two_convs(before, after, after) for before, after in pairs)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = [self.levels[0](x)]
        for level in self.levels[1:]:
            features.append(level(F.max_pool2d(features[-1], 2)))
        return features


class Up(nn.Module):
    """B×D×h×w -> B×E×2h×2w: a 2×2 up-convolution, or bilinear interpolation with aligned corners (then E =
    D)."""

    def __init__(self, in_channels: int, out_channels: int, bilinear: bool):
        super().__init__()
        self.conv = None if bilinear else nn.ConvTranspose2d(in_channels, out_channels, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.conv is not None:
            return self.conv(x)
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def _two_convs(in_channels: int, middle: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(conv_norm_relu(in_channels, middle), conv_norm_relu(middle, out_channels))


def _padded(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`x` zero-padded to height×width; an odd row or column of zeros is at the bottom or right."""
    rows, columns = height - x.shape[-2], width - x.shape[-1]
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
