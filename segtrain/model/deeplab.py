"""What DeepLabv3 and DeepLabv3+ share: a dilated encoder with atrous spatial pyramid pooling (ASPP) behind
it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from segtrain.model.output_stride import MultiGridOptions
from segtrain.model.parts.aspp import ASPP, rates_at, rescaled
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
