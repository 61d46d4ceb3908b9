"""The U-Net of the paper (Ronneberger, Fischer & Brox 2015): without padding, so that the logits are those of
the inner part of the image."""

from __future__ import annotations

import itertools
import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.model.encoder.vgg import WIDTH, scaled
from segtrain.model.encoder.weights import IMAGENET, adapted
from segtrain.model.network import Network
from segtrain.model.parts.atrous import head_of
from segtrain.model.parts.sides import check_sides
from segtrain.options import SHARE
from segtrain.sample import Output, Window

CHANNELS = 64
"""Of the first level; each level below has twice as many."""
POOLINGS = 4


def unet_original(
    out_channels: int,
    in_channels: int = 3,
    width: Annotated[float, WIDTH] = 1.0,
    dropout: Annotated[float, SHARE] = 0.5,
) -> Network:
    """U-Net as published: no padding, no batch normalisation; images of 572x572 pixels give logits of the
    inner 388x388.

    Ronneberger et al. 2015. Images have sides of 16k + 12 px from 188 on, so set augmentation.warp.size (572,
    say); large images go through in tiles that fit together without a seam. One channel and 2 classes: 31 030
    658 parameters; three and 21: 31 033 045.

    Options:
        width: channels of every layer as a share of the paper's 64, 128, 256, 512 and 1024
        dropout: probability that a value of the two lowest levels of the contracting path is dropped in
            training
    """
    net = UNetOriginal(out_channels, in_channels, width=width, dropout=dropout)
    net.normalisation = adapted(IMAGENET, in_channels)
    net.weights_report = "original U-Net: starts from scratch (it has no published weights for these classes)"
    return net


class UNetOriginal(Network):
    """B×K×H×W -> Output with B×C×(H-184)×(W-184) logits of the window in the middle."""

    head_keys = ("head.weight", "head.bias")
    margin = 92
    tile_sides = (188, 16)

    def __init__(self, out_channels: int, in_channels: int, width: float, dropout: float):
        super().__init__()
        channels = [scaled(CHANNELS, width) << level for level in range(POOLINGS + 1)]
        self.encoder = ContractingPath(in_channels, channels, dropout)
        upwards = channels[::-1]
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(below, here, 2, 2) for below, here in itertools.pairwise(upwards)
        )
        self.blocks = nn.ModuleList(_two_convs(2 * here, here) for here in upwards[1:])
        self.apply(_initialise)
        self.head = head_of(channels[0], out_channels)

    def forward(self, x: torch.Tensor) -> Output:
        check_sides(self, *x.shape[-2:])
        *skips, y = self.encoder(x)
        for up, block, skip in zip(self.ups, self.blocks, reversed(skips), strict=True):
            y = up(y)
            y = block(torch.cat([_middle(skip, *y.shape[-2:]), y], dim=1))
        logits = self.head(y)
        height, width = logits.shape[-2:]
        return Output(logits, (height, width), window=Window(self.margin, self.margin, height, width))


class ContractingPath(nn.Module):
    """B×K×H×W -> the features of the five levels, finest first; 2×2 max pooling between levels."""

    def __init__(self, in_channels: int, channels: list[int], dropout: float):
        super().__init__()
        self.levels = nn.ModuleList(
            _two_convs(before, after)
            for before, after in zip((in_channels, *channels), channels, strict=False)
        )
        # "At the end of the contracting path" (sec. 3.1); the published network has dropout in the last two
        # levels.
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for number, level in enumerate(self.levels):
            x = level(F.max_pool2d(x, 2) if features else x)
            x = self.dropout(x) if number >= POOLINGS - 1 else x
            features.append(x)
        return features


def _two_convs(in_channels: int, out_channels: int) -> nn.Sequential:
    """B×K×H×W -> B×D×(H-4)×(W-4)."""
    first, second = nn.Conv2d(in_channels, out_channels, 3), nn.Conv2d(out_channels, out_channels, 3)
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))


def _initialise(module: nn.Module) -> None:
    """Draws weights from N(0, 2/N), where N is the number of inputs of one output value (sec. 3). Each tap of
    an up-convolution contributes to another output value."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        taps = 1 if isinstance(module, nn.ConvTranspose2d) else math.prod(module.kernel_size)
        nn.init.normal_(module.weight, std=math.sqrt(2 / (taps * module.in_channels)))
        nn.init.zeros_(module.bias)


def _middle(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The H×W crop in the middle. All valid sizes leave the same number of pixels at both sides."""
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]
