"""Convolutions that ASPP and decoders are made of, dilated ones too, and their initial weights."""

from __future__ import annotations

import torch
from torch import nn


def conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int = 3, rate: int = 1) -> nn.Sequential:
    """A convolution of odd kernel that keeps H×W, without bias, then batch normalisation and ReLU.

    rate: the dilation, which is the distance of neighbouring taps in pixels. The kernel then spans
    kernel_size + (kernel_size - 1)·(rate - 1) pixels with the same number of weights (Chen et al. 2017,
    "Rethinking atrous convolution", eq. 1).
    """
    padding = rate * (kernel_size // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def initialise(module: nn.Module) -> None:
    """Kaiming normal initialisation (fan out, ReLU) of convolutions; batch normalisation gets weight 1 and
    bias 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def start_at_centre(module: nn.Module) -> None:
    """Sets all taps of the module's dilated convolutions but the centre one to 0; the centre of depthwise
    ones to 1.

    On crops smaller than a rate, outer taps see nothing but padding and get no gradient. On whole images
    their random initial weights would meet real pixels and add noise of which batch normalisation knows
    nothing. Taps that start at 0 add none.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.dilation[0] > 1:
            row, column = (side // 2 for side in part.kernel_size)
            with torch.no_grad():
                centre = part.weight[..., row, column].clone() if part.groups == 1 else 1.0
                part.weight.zero_()
                part.weight[..., row, column] = centre


def head_of(in_channels: int, out_channels: int, kernel_size: int = 1) -> nn.Conv2d:
    """The convolution that gives the logits. Weights are drawn from N(0, 0.01²) and the bias is 0, so that
    all classes start almost equally likely."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)
    return conv
