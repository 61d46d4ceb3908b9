"""Atrous spatial pyramid pooling (Chen et al. 2017, "Rethinking atrous convolution for semantic image
segmentation", sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from segtrain.model.parts.atrous import conv_norm_relu


class ImagePooling(nn.Module):
    """B×D×h×w -> B×width×h×w: global average pooling and a 1×1 convolution, the same value at every pixel."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.project = conv_norm_relu(in_channels, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Bilinear upsampling of one pixel (B×D×1×1) is that pixel everywhere.
        return self.project(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])


class ASPP(nn.Module):
    """B×D×h×w -> B×width×h×w: a 1×1 convolution, one 3×3 convolution per rate and global average pooling in
    parallel; their outputs are concatenated and go through a 1×1 convolution and dropout.

    conv: (in_channels, width, kernel_size, rate) -> module, makes the atrous branches.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        rates: tuple[int, ...],
        image_pooling: bool,
        dropout: float,
        conv: Callable,
    ):
        super().__init__()
        branches = [
            conv_norm_relu(in_channels, width, 1),
            *(conv(in_channels, width, 3, rate) for rate in rates),
        ]
        if image_pooling:
            branches.append(ImagePooling(in_channels, width))
        self.branches = nn.ModuleList(branches)
        self.project = conv_norm_relu(width * len(branches), width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [branch(x) for branch in self.branches]  # each B×width×h×w
        return self.dropout(self.project(torch.cat(branches, dim=1)))


def rates_at(output_stride: int) -> tuple[int, ...]:
    """The paper's rates: (12, 24, 36) at output stride 8, (6, 12, 18) at 16, (3, 6, 9) at 32. All span 96,
    192 and 288 pixels of the image."""
    return tuple(pixels // output_stride for pixels in (96, 192, 288))


def rescaled(rates: tuple[int, ...] | None, before: int, after: int) -> tuple[int, ...] | None:
    """The rates at output stride `after` that span as many pixels of the image as `rates` at output stride
    `before`."""
    return rates and tuple(max(1, rate * before // after) for rate in rates)
