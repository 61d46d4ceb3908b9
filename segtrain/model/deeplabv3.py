"""DeepLabv3 (Chen et al. 2017, "Rethinking atrous convolution for semantic image segmentation")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from segtrain.model.deeplab import PyramidOptions
from segtrain.model.encoder.tap import Tap, is_mobilenetv3, tap_at, tapped
from segtrain.model.network import Network
from segtrain.model.output_stride import NormEpsOptions, StridedNetwork
from segtrain.model.parts.atrous import conv_norm_relu, head_of, initialise
from segtrain.model.parts.fcn_head import FCNHead
from segtrain.options import key, with_options
from segtrain.sample import Output


@dataclass(frozen=True)
class Options(NormEpsOptions, PyramidOptions):
    """Options of DeepLabv3."""

    head: Literal["paper", "torchvision"] = key(
        "paper", "paper: a 1x1 convolution after the ASPP; torchvision: a 3x3 and a 1x1 convolution"
    )
    aux: bool = key(
        False,
        "train an auxiliary head on finer features, as torchvision does: the last but one (layer3 of a "
        "ResNet), of a MobileNetV3 those of the first block at stride 8; loss.aux_weight is its weight",
    )


@with_options(Options)
def deeplabv3(options: Options, out_channels: int, in_channels: int = 3) -> Network:
    """DeepLabv3: atrous spatial pyramid pooling with image-level features on any dilated encoder.

    Chen et al. 2017. The logits come at the output stride. With torchvision's head and 21 classes: 39 638 869
    parameters on resnet50 (with aux 42 004 074), 58 630 997 on resnet101 (60 996 202), 11 025 477 on
    mobilenetv3_large_100 (11 029 328).
    """
    return DeepLabV3(options, out_channels, in_channels).with_weights()


class DeepLabV3(StridedNetwork):
    """B×K×H×W -> Output with logits at the output stride, for any H and W; auxiliary logits in training
    only."""

    def __init__(self, options: Options, out_channels: int, in_channels: int):
        super().__init__(
            options, out_channels, in_channels, multi_grid=options.multi_grid, norm_eps=options.norm_eps
        )
        width, channels = options.aspp_width, self.encoder.channels
        self.aspp = options.pyramid(channels[-1])
        self.extra = conv_norm_relu(width, width) if options.head == "torchvision" else nn.Identity()
        options.initialise(self.aspp)
        initialise(self.extra)
        self.head = head_of(width, out_channels)
        self.tap = (
            tap_at(self.encoder, options.encoder, 8)
            if is_mobilenetv3(options.encoder)
            else Tap(len(channels) - 2)
        )
        self.aux = FCNHead(channels[self.tap.index], out_channels) if options.aux else None

    @property
    def head_keys(self) -> tuple[str, ...]:
        heads = ("head", "aux.logits") if self.options.aux else ("head",)
        return tuple(f"{head}.{kind}" for head in heads for kind in ("weight", "bias"))

    def forward(self, x: torch.Tensor) -> Output:
        finer, last = tapped(self.encoder, x, self.tap)
        aux = (self.aux(finer),) if self.aux is not None and self.training else ()
        return Output(
            self.head(self.extra(self.aspp(last))),
            tuple(x.shape[-2:]),
            aux,
            align_corners=self.options.align_corners,
        )
