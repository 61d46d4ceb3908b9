"""A ResNet made fully convolutional (Long et al. 2015) with dilated last stages, as in torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from segtrain.model.network import Network
from segtrain.model.output_stride import MultiGridOptions, StridedNetwork
from segtrain.model.parts.fcn_head import FCNHead
from segtrain.options import SHARE, key, with_options
from segtrain.sample import Output


@dataclass(frozen=True)
class Options(MultiGridOptions):
    """Options of FCN on a dilated encoder."""

    output_stride: Literal[8, 16, 32] = key(
        8, "side of the image divided by the side of the encoder's last features: 8, 16 or 32"
    )
    aux: bool = key(
        False,
        "train an auxiliary head on the last features but one (layer3 of a ResNet); loss.aux_weight is its "
        "weight",
    )
    dropout: Annotated[float, SHARE] = key(
        0.1, "probability that a value is dropped in training before the logits"
    )


@with_options(Options)
def fcn(options: Options, out_channels: int, in_channels: int = 3) -> Network:
    """FCN on a dilated ResNet: two convolutions make logits of the encoder's last features, which are
    upsampled.

    Long et al. 2015 in the form of torchvision. With 21 classes: 32 957 013 parameters on resnet50 (with aux
    35 322 218), 51 949 141 on resnet101 (54 314 346).
    """
    return FCN(options, out_channels, in_channels).with_weights()


class FCN(StridedNetwork):
    """B×K×H×W -> Output with logits at the output stride, for any H and W; auxiliary logits in training
    only."""

    def __init__(self, options: Options, out_channels: int, in_channels: int):
        super().__init__(options, out_channels, in_channels, multi_grid=options.multi_grid)
        self.head = FCNHead(self.encoder.channels[-1], out_channels, options.dropout)
        self.aux = FCNHead(self.encoder.channels[-2], out_channels) if options.aux else None

    @property
    def head_keys(self) -> tuple[str, ...]:
        return tuple(
            f"{head}.logits.{kind}"
            for head in ("head", "aux")[: 1 + self.options.aux]
            for kind in ("weight", "bias")
        )

    def forward(self, x: torch.Tensor) -> Output:
        features = self.encoder(x)
        aux = (self.aux(features[-2]),) if self.aux is not None and self.training else ()
        return Output(self.head(features[-1]), tuple(x.shape[-2:]), aux)
