"""Depthwise separable convolution in its three published forms."""

from __future__ import annotations

from typing import Literal

from torch import nn

Form = Literal["tf", "xception", "plain"]


def separable(
    in_channels: int, out_channels: int, kernel_size: int = 3, rate: int = 1, form: Form = "tf"
) -> nn.Sequential:
    """A depthwise k×k convolution, then a pointwise 1×1 convolution: k²·in + in·out weights instead of the
    k²·in·out of a dense convolution.

    form: where batch normalisation (BN) and ReLU stand.
        "tf": depthwise, BN, ReLU, pointwise, BN, ReLU (DeepLab's ASPP and decoder; Xception's exit).
        "xception": ReLU, depthwise, BN, pointwise, BN (entry and middle flow of aligned Xception).
        "plain": depthwise, pointwise, BN, ReLU; the two then equal one dense convolution with kernels of rank
        one.
    """
    padding = rate * (kernel_size // 2)
    depthwise = nn.Conv2d(
        in_channels, in_channels, kernel_size, padding=padding, dilation=rate, groups=in_channels, bias=False
    )
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    norm_in, norm_out = nn.BatchNorm2d(in_channels), nn.BatchNorm2d(out_channels)
    if form == "tf":
        return nn.Sequential(
            depthwise, norm_in, nn.ReLU(inplace=True), pointwise, norm_out, nn.ReLU(inplace=True)
        )
    if form == "xception":
        # Not in place: other branches read the same input.
        return nn.Sequential(nn.ReLU(), depthwise, norm_in, pointwise, norm_out)
    return nn.Sequential(depthwise, pointwise, norm_out, nn.ReLU(inplace=True))
