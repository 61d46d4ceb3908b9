"""DeconvNet (Noh, Hong & Han 2015, "Learning deconvolution network for semantic segmentation")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.model.encoder.vgg import DEPTHS, VGG16, VGGOptions, load_vgg16_weights
from segtrain.model.network import Network
from segtrain.model.parts.atrous import head_of
from segtrain.model.parts.limits import CHANNELS
from segtrain.options import key, with_options
from segtrain.sample import Output

STRIDE = 32
SMALLEST = 224
"""Smallest side in pixels: five poolings leave 7×7 features, all of which the kernel of fc6 covers."""


@dataclass(frozen=True)
class Options(VGGOptions):
    """Options of DeconvNet."""

    fc_width: Annotated[int, CHANNELS] = key(
        4096,
        "channels of fc6 and fc7, which hold nine tenths of the weights; only 4096 takes published weights "
        "there, any other number starts from scratch",
    )
    conv_bias: bool = key(
        True,
        "biases in front of batch normalisation, as in the published network; they do not change its output",
    )


@with_options(Options)
def deconvnet(options: Options, out_channels: int, in_channels: int = 3) -> Network:
    """DeconvNet: VGG16 and its mirror image, whose unpoolings put values back to where the poolings took them
    from.

    Noh et al. 2015. With 21 classes: 251 805 653 parameters (1 GB), bias-free 251 788 949; width=0.25
    fc_width=512 suits a laptop. Images are padded to a multiple of 32, at least 224. It is meant for crops
    around objects (augmentation=object_crops).
    """
    net = DeconvNet(options, out_channels, in_channels)
    net.normalisation, net.weights_report = load_vgg16_weights(
        net.encoder, options.weights, options.width, in_channels
    )
    return net


class DeconvNet(Network):
    """B×K×H×W -> Output with B×C×H×W logits, for any H and W."""

    head_keys = ("head.weight", "head.bias")

    def __init__(self, options: Options, out_channels: int, in_channels: int):
        super().__init__()
        conv_bias = options.conv_bias
        # The published network has no dropout: batch normalisation regularises it.
        self.encoder = VGG16(
            in_channels,
            options.width,
            norm=True,
            dropout=0.0,
            bias=conv_bias,
            fc_channels=options.fc_width,
        )
        *channels, fc_channels = self.encoder.channels
        self.fc = nn.Sequential(*_deconv(fc_channels, channels[-1], 7, 0, conv_bias))
        self.levels = nn.ModuleList(
            _deconvs(DEPTHS[level], channels[level], channels[max(0, level - 1)], conv_bias)
            for level in reversed(range(len(channels)))
        )
        self.head = head_of(channels[0], out_channels)

    def forward(self, x: torch.Tensor) -> Output:
        height, width = x.shape[-2:]
        y = F.pad(x, (0, _missing(width), 0, _missing(height)))
        places = []
        for level in self.encoder.levels:
            y, indices = F.max_pool2d(level(y), 2, return_indices=True)
            places.append(indices)
        y = self.fc(self.encoder.fc7(self.encoder.fc6(y)))  # fc6 to B×D×(h-6)×(w-6), fc back to h×w
        for level, indices in zip(self.levels, reversed(places), strict=True):
            y = level(unpooled(y, indices))
        return Output(self.head(y)[..., :height, :width], (height, width))


def unpooled(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """B×D×h×w -> B×D×2h×2w: zeros, and the values of `x` at `indices` of a 2×2 pooling (int64, into the
    flattened 2h×2w).

    F.max_unpool2d as a scatter, whose gradient is a gather and therefore deterministic on every device.
    """
    height, width = 2 * x.shape[-2], 2 * x.shape[-1]
    empty = x.new_zeros(*x.shape[:2], height * width)
    return empty.scatter(2, indices.flatten(2), x.flatten(2)).unflatten(2, (height, width))


def _missing(length: int) -> int:
    """Pixels that lack to the next side that the network takes."""
    return max(SMALLEST, length + -length % STRIDE) - length


def _deconvs(depth: int, channels: int, last: int, bias: bool) -> nn.Sequential:
    """A level of VGG16 backwards: `depth` deconvolutions, the last of which gives the channels of the level
    above."""
    outputs = [*[channels] * (depth - 1), last]
    return nn.Sequential(*(part for out in outputs for part in _deconv(channels, out, 3, 1, bias)))


def _deconv(
    in_channels: int, out_channels: int, kernel_size: int, padding: int, bias: bool
) -> list[nn.Module]:
    """A transposed convolution of stride 1 from N(0, 0.01²), batch normalisation and ReLU, as the published
    network starts them."""
    conv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size, padding=padding, bias=bias)
    nn.init.normal_(conv.weight, std=0.01)
    if bias:
        nn.init.zeros_(conv.bias)
    norm = nn.BatchNorm2d(out_channels)
    nn.init.constant_(norm.bias, 0.001)
    return [conv, norm, nn.ReLU(inplace=True)]
