"""Atrous spatial pyramid pooling (Chen et al. 2017, "Rethinking atrous convolution for semantic image
segmentation", sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import torch
from torch import nn

from segtrain.model.output_stride import MultiGridOptions
from segtrain.model.parts.atrous import conv_norm_relu, initialise, start_at_centre
from segtrain.model.parts.limits import CHANNELS, RATE
from segtrain.options import SHARE, Length, key


@dataclass(frozen=True)
class PyramidOptions(MultiGridOptions):
    """Options of networks with atrous spatial pyramid pooling (ASPP) behind a dilated encoder."""

    rates: Annotated[tuple[Annotated[int, RATE], ...], Length(0, 16)] | None = key(
        None,
        "atrous rates of the ASPP's 3x3 convolutions; null: 6, 12, 18 at output stride 16, twice these at 8, "
        "half of them at 32",
    )
    aspp_width: Annotated[int, CHANNELS] = key(256, "channels of each branch of the ASPP and of its output")
    image_pooling: bool = key(True, "give the ASPP a branch of global average pooling")
    dropout: Annotated[float, SHARE] = key(
        0.1, "probability that a value of the ASPP's output is dropped in training (torchvision: 0.5)"
    )
    aspp_start: Literal["kaiming", "centre"] = key(
        "kaiming",
        "initial weights of the ASPP's 3x3 convolutions; centre sets all taps but the middle one to 0, which "
        "short runs on crops smaller than the largest rate need",
    )
    align_corners: bool = key(
        False,
        "interpolate features and logits with align_corners, for weights of segmentation_models_pytorch or "
        "TensorFlow",
    )

    def at(self, output_stride: int) -> Self:
        """The options at another output stride. The rates keep spanning the same number of image pixels."""
        rates = rescaled(self.rates, self.output_stride, output_stride)
        return replace(self, output_stride=output_stride, rates=rates)

    def pyramid(self, in_channels: int, conv: Callable = conv_norm_relu) -> ASPP:
        """A new ASPP, not yet initialised: B×in_channels×h×w -> B×aspp_width×h×w. conv: see ASPP."""
        rates = rates_at(self.output_stride) if self.rates is None else self.rates
        return ASPP(in_channels, self.aspp_width, rates, self.image_pooling, self.dropout, conv)

    def initialise(self, aspp: ASPP) -> None:
        """Draws the initial weights of the ASPP."""
        initialise(aspp)
        if self.aspp_start == "centre":
            start_at_centre(aspp)


class ImagePooling(nn.Module):
    """The mean over the image, projected, at every pixel."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.project = conv_norm_relu(in_channels, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Bilinear upsampling of one pixel is that pixel everywhere.
        return self.project(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])


class ASPP(nn.Module):
    """B×D×h×w -> B×width×h×w: a 1×1, one 3×3 per rate and the image's mean side by side, then merged by a 1×1
    and dropout.

    conv: (in_channels, width, kernel_size, rate) -> module, what the atrous branches are made of.
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
        return self.dropout(self.project(torch.cat([branch(x) for branch in self.branches], dim=1)))


def rates_at(output_stride: int) -> tuple[int, ...]:
    """(12, 24, 36) at output stride 8, (6, 12, 18) at 16, (3, 6, 9) at 32: always 96, 192 and 288 pixels of
    the image."""
    return tuple(pixels // output_stride for pixels in (96, 192, 288))


def rescaled(rates: tuple[int, ...] | None, before: int, after: int) -> tuple[int, ...] | None:
    """Rates of output stride `before` at output stride `after`: they go on to span the same number of the
    image's pixels."""
    return rates and tuple(max(1, rate * before // after) for rate in rates)
