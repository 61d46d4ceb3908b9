"""LR-ASPP (Howard et al. 2019, "Searching for MobileNetV3", sec. 6.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.model.atrous import conv_norm_relu, head_of, initialise
from segtrain.model.encoder import encoder_of
from segtrain.model.limits import check_counts
from segtrain.model.network import Network
from segtrain.model.tap import tap_at, tapped
from segtrain.model.weights import load_encoder_weights
from segtrain.sample import Output


def lraspp(
    out_channels: int,
    in_channels: int = 3,
    encoder: str = "mobilenetv3_large_100",
    weights: str = "imagenet",
    output_stride: int = 16,
    contract_dilation: bool = True,
    width: int = 128,
    norm_eps: float | None = None,
) -> Network:
    """LR-ASPP: the light head of MobileNetV3; the image's mean gates the last features, and finer ones are
    scored beside them.

    Howard et al. 2019 in the form of torchvision. The logits come at stride 8. With 21 classes: 3 221 538
    parameters.

    Options:
        encoder: one of timm's names that takes an output stride (`segtrain list encoders`)
        weights: what the encoder starts from: imagenet, none, or the path of a .safetensors or .pth file
        output_stride: how much smaller than the image the encoder's last features are: 8, 16 or 32
        contract_dilation: let the first convolution of a stage without its stride keep the dilation of the
            stage before; false, which torchvision's weights want, gives a stage one dilation
        width: channels to which the encoder's last features are reduced
        norm_eps: what the encoder's batch normalisation adds to the variance; null is timm's number,
            torchvision's MobileNetV3 wants 0.001
    """
    net = LRASPP(
        Recipe(out_channels, in_channels, encoder, output_stride, contract_dilation, width, norm_eps)
    )
    net.normalisation, net.weights_report = load_encoder_weights(net.encoder, encoder, weights, in_channels)
    return net


@dataclass(frozen=True)
class Recipe:
    """All that decides the shape of the network and what it computes."""

    out_channels: int
    in_channels: int
    encoder: str
    output_stride: int
    contract_dilation: bool
    width: int
    norm_eps: float | None

    def __post_init__(self):
        check_counts(width=self.width)

    def at(self, output_stride: int) -> Recipe:
        return replace(self, output_stride=output_stride)


class LRASPP(Network):
    """B×K×H×W -> Output with logits at stride 8, for any H and W."""

    head_keys = tuple(f"{head}.{kind}" for head in ("low_head", "high_head") for kind in ("weight", "bias"))
    """The tensors whose first dimension is the classes."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.options = recipe
        self.encoder = encoder_of(
            recipe.encoder,
            recipe.in_channels,
            recipe.output_stride,
            recipe.contract_dilation,
            norm_eps=recipe.norm_eps,
        )
        channels = self.encoder.channels
        self.tap = tap_at(self.encoder, recipe.encoder, 8)
        self.reduce = conv_norm_relu(channels[-1], recipe.width, 1)
        self.gate = nn.Conv2d(channels[-1], recipe.width, 1, bias=False)
        for part in (self.reduce, self.gate):
            initialise(part)
        self.low_head = head_of(channels[self.tap.index], recipe.out_channels)
        self.high_head = head_of(recipe.width, recipe.out_channels)

    def forward(self, x: torch.Tensor) -> Output:
        low, high = tapped(self.encoder, x, self.tap)
        y = self.reduce(high) * torch.sigmoid(self.gate(high.mean((2, 3), keepdim=True)))
        y = F.interpolate(y, size=low.shape[-2:], mode="bilinear", align_corners=False)
        return Output(self.low_head(low) + self.high_head(y), tuple(x.shape[-2:]))
