"""DeepLabv3+ (Chen et al. 2018, "Encoder-decoder with atrous separable convolution for semantic image
segmentation")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.deeplab import PyramidOptions
from segtrain.model.network import Network
from segtrain.model.output_stride import StridedNetwork
from segtrain.model.parts.atrous import conv_norm_relu, head_of, initialise
from segtrain.model.parts.limits import CHANNELS
from segtrain.model.parts.separable import Form, separable
from segtrain.options import between, key, with_options
from segtrain.sample import Output


@dataclass(frozen=True)
class Options(PyramidOptions):
    """Options of DeepLabv3+."""

    aspp_conv: bool = key(
        False, "a further 3x3 convolution between ASPP and decoder, as in segmentation_models_pytorch"
    )
    low_level_width: Annotated[int, CHANNELS] = key(
        48, "channels that a 1x1 convolution reduces the encoder's features of stride 4 to"
    )
    decoder_width: Annotated[int, CHANNELS] = key(256, "channels of the decoder's 3x3 convolutions")
    decoder_convs: Annotated[int, between(1, 8)] = key(2, "number of the decoder's 3x3 convolutions")
    middle_width: Annotated[int, CHANNELS] | None = key(
        None,
        "channels that a 1x1 convolution reduces the encoder's features of stride 8 to; a 3x3 convolution "
        "then merges them with the ASPP's output, before the features of stride 4 are merged "
        "(Panoptic-DeepLab, Cheng et al. 2020); null: not used, as in the paper",
    )
    fine_width: Annotated[int, CHANNELS] | None = key(
        None,
        "channels of a second decoder stage at stride 2, for objects a few pixels wide (DeepLab's code with "
        "decoder_output_stride 4,2, here narrower); null: the decoder ends at stride 4, as in the paper",
    )
    separable: bool = key(
        False, "make the 3x3 convolutions of ASPP and decoder depthwise separable convolutions"
    )
    separable_form: Form = key(
        "tf",
        "where batch normalisation and ReLU stand in separable convolutions. tf: after the depthwise and "
        "after the pointwise convolution; xception: ReLU in front, normalisation after both; plain: after "
        "the pointwise convolution only",
    )

    def conv(self) -> Callable:
        """(in_channels, out_channels, kernel_size, rate) -> module, for the 3×3 convolutions."""
        return partial(separable, form=self.separable_form) if self.separable else conv_norm_relu


@with_options(Options)
def deeplabv3plus(options: Options, out_channels: int, in_channels: int = 3) -> Network:
    """DeepLabv3+: atrous spatial pyramid pooling on any encoder, with a small decoder that sharpens borders.

    Chen et al. 2018. The logits come at stride 4, or at 2 with fine_width. With resnet50, 21 classes: 40 352
    181 parameters.
    """
    return DeepLabV3Plus(options, out_channels, in_channels).with_weights()


class DeepLabV3Plus(StridedNetwork):
    """B×K×H×W -> Output with B×C×ceil(H/4)×ceil(W/4) logits, or at stride 2 with a fine stage, for any H and
    W."""

    def __init__(self, options: Options, out_channels: int, in_channels: int):
        super().__init__(options, out_channels, in_channels, multi_grid=options.multi_grid)
        channels, width, conv = self.encoder.channels, options.aspp_width, options.conv()
        self.low_index = self._level_of_stride(4)
        self.aspp = options.pyramid(channels[-1], conv)
        self.aspp_conv = conv(width, width, 3, 1) if options.aspp_conv else nn.Identity()
        self.middle = None
        if options.middle_width is not None:
            self.middle_index = self._level_of_stride(8)
            self.middle = Joined(
                channels=width,
                fine_channels=channels[self.middle_index],
                width=options.middle_width,
                conv=conv,
                align_corners=options.align_corners,
            )
        self.low_level = conv_norm_relu(channels[self.low_index], options.low_level_width, 1)
        inputs = (width + options.low_level_width, *[options.decoder_width] * (options.decoder_convs - 1))
        self.decoder = nn.Sequential(*(conv(before, options.decoder_width, 3, 1) for before in inputs))
        options.initialise(self.aspp)
        for part in (self.aspp_conv, self.low_level, self.decoder):
            initialise(part)
        self.head = head_of(options.decoder_width, out_channels)
        self.fine, self.head_keys = None, ("head.weight", "head.bias")
        if options.fine_width is not None:
            self.head_keys += ("fine.head.weight", "fine.head.bias")
            self.fine_index = self._level_of_stride(2)
            self.fine = FineStage(
                in_channels=options.decoder_width,
                low_channels=channels[self.fine_index],
                width=options.fine_width,
                out_channels=out_channels,
                conv=conv,
                align_corners=options.align_corners,
            )

    bias_keys = ("head.bias",)

    def _level_of_stride(self, stride: int) -> int:
        """Index of the encoder's features of this stride; ConfigError if there are none."""
        strides = self.encoder.reductions
        if stride not in strides:
            raise ConfigError(
                f"model.encoder={self.options.encoder} has no features of stride {stride} (it has "
                f"{strides}), which the decoder needs; use model.encoder=resnet50"
            )
        return strides.index(stride)

    def forward(self, x: torch.Tensor) -> Output:
        features = self.encoder(x)
        low = self.low_level(features[self.low_index])  # B×low_level_width×H/4×W/4
        high = self.aspp_conv(self.aspp(features[-1]))  # B×aspp_width×h×w at the output stride
        if self.middle is not None:
            high = self.middle(high, features[self.middle_index])
        high = F.interpolate(
            high, size=low.shape[-2:], mode="bilinear", align_corners=self.options.align_corners
        )
        y = self.decoder(torch.cat([high, low], dim=1))
        logits = self.head(y)
        if self.fine is not None:
            logits = self.fine(logits, y, features[self.fine_index])
        return Output(logits, tuple(x.shape[-2:]), align_corners=self.options.align_corners)


class Joined(nn.Module):
    """B×D×h×w features of the ASPP and B×E×H×W features of the encoder at a finer stride -> B×D×H×W."""

    def __init__(self, channels: int, fine_channels: int, width: int, conv: Callable, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.reduce = conv_norm_relu(fine_channels, width, 1)
        self.conv = conv(channels + width, channels, 3, 1)
        initialise(self)

    def forward(self, x: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        fine = self.reduce(fine)
        x = F.interpolate(x, size=fine.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        return self.conv(torch.cat([x, fine], dim=1))


class FineStage(nn.Module):
    """B×C×h×w logits, the B×D×h×w features that they are made of, and B×E×2h×2w features of the encoder ->
    B×C×2h×2w logits.

    The upsampled logits plus a correction made from `width` channels: at this size a channel costs four times
    as much as at stride 4, and logits made from so few channels alone would lose the rare classes.
    """

    def __init__(
        self,
        in_channels: int,
        low_channels: int,
        width: int,
        out_channels: int,
        conv: Callable,
        align_corners: bool,
    ):
        super().__init__()
        self.align_corners = align_corners
        self.reduce = conv_norm_relu(in_channels, width, 1)
        self.low_level = conv_norm_relu(low_channels, width, 1)
        self.convs = nn.Sequential(conv(2 * width, width, 3, 1), conv(width, width, 3, 1))
        initialise(self)
        self.head = head_of(width, out_channels)

    def forward(self, logits: torch.Tensor, x: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        low = self.low_level(features)
        both = torch.cat([logits, self.reduce(x)], dim=1)  # B×(C + width)×h×w, upsampled together
        both = F.interpolate(both, size=low.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        logits, high = both.split([logits.shape[1], low.shape[1]], dim=1)
        return logits + self.head(self.convs(torch.cat([high, low], dim=1)))
