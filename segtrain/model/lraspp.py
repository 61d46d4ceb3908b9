"""LR-ASPP (Howard et al. 2019, "Searching for MobileNetV3", sec. 6.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.model.encoder.tap import tap_at, tapped
from segtrain.model.network import Network
from segtrain.model.output_stride import EncoderOptions, NormEpsOptions, StridedNetwork
from segtrain.model.parts.atrous import conv_norm_relu, head_of, initialise
from segtrain.model.parts.limits import CHANNELS
from segtrain.options import key, with_options
from segtrain.sample import Output


@dataclass(frozen=True)
class Options(NormEpsOptions, EncoderOptions):
    """Options of LR-ASPP."""

    encoder: str = key(
        "mobilenetv3_large_100",
        "name of a network of timm that takes an output stride (`segtrain list encoders`)",
    )
    width: Annotated[int, CHANNELS] = key(128, "channels that the encoder's last features are reduced to")


@with_options(Options)
def lraspp(options: Options, out_channels: int, in_channels: int = 3) -> Network:
    """LR-ASPP: the light head of MobileNetV3; global average pooling gates the last features, and finer ones
    have logits of their own.

    Howard et al. 2019 in the form of torchvision. The logits come at stride 8. With 21 classes: 3 221 538
    parameters.
    """
    return LRASPP(options, out_channels, in_channels).with_weights()


class LRASPP(StridedNetwork):
    """B×K×H×W -> Output with logits at stride 8, for any H and W."""

    head_keys = tuple(f"{head}.{kind}" for head in ("low_head", "high_head") for kind in ("weight", "bias"))
    bias_keys = ("high_head.bias",)

    def __init__(self, options: Options, out_channels: int, in_channels: int):
        super().__init__(options, out_channels, in_channels, norm_eps=options.norm_eps)
        channels = self.encoder.channels
        self.tap = tap_at(self.encoder, options.encoder, 8)
        self.reduce = conv_norm_relu(channels[-1], options.width, 1)
        self.gate = nn.Conv2d(channels[-1], options.width, 1, bias=False)
        for part in (self.reduce, self.gate):
            initialise(part)
        self.low_head = head_of(channels[self.tap.index], out_channels)
        self.high_head = head_of(options.width, out_channels)

    def forward(self, x: torch.Tensor) -> Output:
        low, high = tapped(self.encoder, x, self.tap)  # at stride 8 and at the output stride
        gate = torch.sigmoid(self.gate(high.mean((2, 3), keepdim=True)))  # B×width×1×1
        y = self.reduce(high) * gate
        y = F.interpolate(y, size=low.shape[-2:], mode="bilinear", align_corners=False)
        return Output(self.low_head(low) + self.high_head(y), tuple(x.shape[-2:]))
