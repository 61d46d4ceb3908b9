"""DeepLabv3 (Chen et al. 2017, "Rethinking atrous convolution for semantic image segmentation")."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import nn

from segtrain.model.aspp import ASPP, rates_at, rescaled
from segtrain.model.atrous import conv_norm_relu, head_of, initialise, start_at_centre
from segtrain.model.encoder import encoder_of
from segtrain.model.fcn_head import FCNHead
from segtrain.model.limits import check_counts, check_dropout, check_rates
from segtrain.model.network import Network
from segtrain.model.tap import Tap, is_mobilenetv3, tap_at, tapped
from segtrain.model.weights import load_encoder_weights
from segtrain.sample import Output


def deeplabv3(
    out_channels: int,
    in_channels: int = 3,
    encoder: str = "resnet50",
    weights: str = "imagenet",
    output_stride: int = 16,
    contract_dilation: bool = True,
    multi_grid: tuple[int, ...] | None = None,
    rates: tuple[int, ...] | None = None,
    aspp_width: int = 256,
    image_pooling: bool = True,
    head: Literal["paper", "torchvision"] = "paper",
    aux: bool = False,
    dropout: float = 0.1,
    aspp_start: Literal["kaiming", "centre"] = "kaiming",
    align_corners: bool = False,
    norm_eps: float | None = None,
) -> Network:
    """DeepLabv3: atrous spatial pyramid pooling with the image's mean on any dilated encoder.

    Chen et al. 2017. The logits come at the output stride. With torchvision's head and 21 classes: 39 638 869
    parameters on resnet50 (with aux 42 004 074), 58 630 997 on resnet101 (60 996 202), 11 025 477 on
    mobilenetv3_large_100 (11 029 328).

    Options:
        encoder: one of timm's names that takes an output stride (`segtrain list encoders`)
        weights: what the encoder starts from: imagenet, none, or the path of a .safetensors or .pth file
        output_stride: how much smaller than the image the encoder's last features are: 8, 16 or 32
        contract_dilation: let the first convolution of a stage without its stride keep the dilation of the
            stage before, so that every output stride computes the same function (not with squeeze-excitation
            or anti-aliasing, nor tf_ encoders at even sizes and ConvNeXt at 8); false for weights that were
            trained otherwise
        multi_grid: factors of the dilation of the units of a ResNet's last block, the paper's are [1, 2, 4];
            null follows contract_dilation
        rates: distances of the taps of the pyramid's 3x3 convolutions; null is 6, 12, 18 at output stride 16,
            twice that at 8 and half of it at 32
        aspp_width: channels of each branch of the pyramid and of its output
        image_pooling: let the pyramid see the mean over the image
        head: what makes the logits of the pyramid's output: a 1x1 convolution (paper), or a 3x3 before it
            (torchvision)
        aux: train a second head on finer features as torchvision does: the last but one (layer3 of a ResNet),
            of a MobileNetV3 those of the first block at stride 8; loss.aux_weight weighs it
        dropout: probability that a value of the pyramid's output is dropped in training (torchvision: 0.5)
        aspp_start: what the pyramid's 3x3 weights are drawn from; centre sets all taps but the middle one to
            0, which short runs on crops smaller than the pyramid's reach need
        align_corners: interpolate the logits from corner to corner, for weights of
            segmentation_models_pytorch or TensorFlow
        norm_eps: what the encoder's batch normalisation adds to the variance; null is timm's number,
            torchvision's MobileNetV3 wants 0.001
    """
    net = DeepLabV3(
        Recipe(
            out_channels, in_channels, encoder, output_stride, contract_dilation, multi_grid,
            rates, aspp_width,
            image_pooling, head, aux, dropout, align_corners, norm_eps,
        )
    )  # fmt: skip
    if aspp_start == "centre":
        start_at_centre(net.aspp)
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
    multi_grid: tuple[int, ...] | None
    rates: tuple[int, ...] | None
    aspp_width: int
    image_pooling: bool
    head: Literal["paper", "torchvision"]
    aux: bool
    dropout: float
    align_corners: bool
    norm_eps: float | None
    given: tuple[tuple[int, ...] | None, int] | None = field(default=None, compare=False)
    """The rates as they were given, and for which output stride: rounded ones would not find their way
    back."""

    def __post_init__(self):
        check_counts(aspp_width=self.aspp_width)
        check_rates(self.rates)
        check_dropout(self.dropout)

    def at(self, output_stride: int) -> Recipe:
        """The recipe at another output stride: the rates go on to span the same number of the image's
        pixels."""
        given = self.given or (self.rates, self.output_stride)
        return replace(self, output_stride=output_stride, rates=rescaled(*given, output_stride), given=given)


class DeepLabV3(Network):
    """B×K×H×W -> Output with logits at the output stride, for any H and W; auxiliary logits in training
    only."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.options = recipe
        self.encoder = encoder_of(
            recipe.encoder,
            recipe.in_channels,
            recipe.output_stride,
            recipe.contract_dilation,
            recipe.multi_grid,
            recipe.norm_eps,
        )
        rates = rates_at(recipe.output_stride) if recipe.rates is None else recipe.rates
        width, channels = recipe.aspp_width, self.encoder.channels
        self.aspp = ASPP(channels[-1], width, rates, recipe.image_pooling, recipe.dropout, conv_norm_relu)
        self.extra = conv_norm_relu(width, width) if recipe.head == "torchvision" else nn.Identity()
        for part in (self.aspp, self.extra):
            initialise(part)
        self.head = head_of(width, recipe.out_channels)
        self.tap = (
            tap_at(self.encoder, recipe.encoder, 8)
            if is_mobilenetv3(recipe.encoder)
            else Tap(len(channels) - 2)
        )
        self.aux = FCNHead(channels[self.tap.index], recipe.out_channels) if recipe.aux else None

    @property
    def head_keys(self) -> tuple[str, ...]:
        """The tensors whose first dimension is the classes."""
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
