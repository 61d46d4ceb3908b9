"""DeepLabv3+ (Chen et al. 2018, "Encoder-decoder with atrous separable convolution for semantic image segmentation")."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.aspp import ASPP
from segtrain.model.atrous import conv_norm_relu, head_of, initialise, start_at_centre
from segtrain.model.encoder import encoder_of
from segtrain.model.separable import Form, separable
from segtrain.model.weights import load_encoder_weights
from segtrain.sample import Output


def deeplabv3plus(
    out_channels: int,
    in_channels: int = 3,
    encoder: str = "resnet50",
    weights: str = "imagenet",
    output_stride: int = 16,
    rates: tuple[int, ...] | None = None,
    aspp_width: int = 256,
    low_level_width: int = 48,
    decoder_width: int = 256,
    decoder_convs: int = 2,
    separable: bool = False,
    separable_form: Form = "tf",
    image_pooling: bool = True,
    dropout: float = 0.1,
    aspp_start: Literal["kaiming", "centre"] = "kaiming",
) -> nn.Module:
    """DeepLabv3+: atrous pyramid pooling on any encoder, with a small decoder that sharpens the borders.

    Chen et al. 2018. The logits come at stride 4. With resnet50, 21 classes: 40 352 181 parameters.

    Options:
        encoder: one of timm's names that takes an output stride (`segtrain list encoders`)
        weights: what the encoder starts from: imagenet, none, or the path of a .safetensors or .pth file
        output_stride: how much smaller than the image the encoder's last features are: 8, 16 or 32
        rates: distances of the taps of the pyramid's 3x3 convolutions; null is 6, 12, 18 at output stride 16,
            twice that at 8 and half of it at 32
        aspp_width: channels of each branch of the pyramid and of its output
        low_level_width: channels to which the encoder's features of stride 4 are reduced
        decoder_width: channels of the decoder's 3x3 convolutions
        decoder_convs: number of the decoder's 3x3 convolutions
        separable: make the pyramid's and the decoder's 3x3 convolutions depthwise separable
        separable_form: where batch normalisation and ReLU stand in them: tf (after both parts),
            xception (ReLU in front, normalisation after both), plain (after the second part only)
        image_pooling: let the pyramid see the mean over the image
        dropout: probability that a channel value of the pyramid's output is dropped in training
        aspp_start: what the pyramid's 3x3 weights are drawn from; centre sets all taps but the middle one to 0, which short
            runs on crops smaller than the pyramid's reach need
    """
    form = separable_form if separable else None
    net = DeepLabV3Plus(
        Recipe(
            out_channels, in_channels, encoder, output_stride, rates, aspp_width, low_level_width, decoder_width, decoder_convs,
            form, image_pooling, dropout,
        )
    )  # fmt: skip
    if aspp_start == "centre":
        start_at_centre(net.aspp)
    net.pretrained = weights != "none"
    net.normalisation, net.weights_report = load_encoder_weights(net.encoder, encoder, weights, in_channels)
    return net


@dataclass(frozen=True)
class Recipe:
    """All that decides the shape of the network; separable_form is None for dense convolutions."""

    out_channels: int
    in_channels: int
    encoder: str
    output_stride: int
    rates: tuple[int, ...] | None
    aspp_width: int
    low_level_width: int
    decoder_width: int
    decoder_convs: int
    separable_form: Form | None
    image_pooling: bool
    dropout: float

    def __post_init__(self):
        for name in ("aspp_width", "low_level_width", "decoder_width", "decoder_convs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}; allowed: an integer from 1")
        if self.rates is not None and min(self.rates, default=1) < 1:
            raise ConfigError(f"model.rates is {list(self.rates)}; allowed: integers from 1, or null")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}; allowed: 0 up to, not including, 1")

    def at(self, output_stride: int) -> Recipe:
        """The recipe at another output stride: the rates go on to span the same number of the image's pixels."""
        rates = self.rates and tuple(max(1, rate * self.output_stride // output_stride) for rate in self.rates)
        return replace(self, output_stride=output_stride, rates=rates)


class DeepLabV3Plus(nn.Module):
    """B×K×H×W -> Output with B×C×ceil(H/4)×ceil(W/4) logits, for any H and W."""

    head_keys = ("head.weight", "head.bias")
    """The tensors whose first dimension is the classes."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.recipe = recipe
        self.encoder = encoder_of(recipe.encoder, recipe.in_channels, recipe.output_stride)
        self.low_index = _level_of_stride_4(self.encoder, recipe.encoder)
        conv = partial(separable, form=recipe.separable_form) if recipe.separable_form else conv_norm_relu
        rates = rates_at(recipe.output_stride) if recipe.rates is None else recipe.rates
        self.aspp = ASPP(self.encoder.channels[-1], recipe.aspp_width, rates, recipe.image_pooling, recipe.dropout, conv)
        self.low_level = conv_norm_relu(self.encoder.channels[self.low_index], recipe.low_level_width, 1)
        inputs = (recipe.aspp_width + recipe.low_level_width, *[recipe.decoder_width] * (recipe.decoder_convs - 1))
        self.decoder = nn.Sequential(*(conv(channels, recipe.decoder_width, 3, 1) for channels in inputs))
        for part in (self.aspp, self.low_level, self.decoder):
            initialise(part)
        self.head = head_of(recipe.decoder_width, recipe.out_channels)

    def forward(self, x: torch.Tensor) -> Output:
        features = self.encoder(x)
        low = self.low_level(features[self.low_index])
        high = F.interpolate(self.aspp(features[-1]), size=low.shape[-2:], mode="bilinear", align_corners=False)
        return Output(self.head(self.decoder(torch.cat([high, low], dim=1))), tuple(x.shape[-2:]))


def rates_at(output_stride: int) -> tuple[int, ...]:
    """(12, 24, 36) at output stride 8, (6, 12, 18) at 16, (3, 6, 9) at 32: always 96, 192 and 288 pixels of the image."""
    return tuple(pixels // output_stride for pixels in (96, 192, 288))


def _level_of_stride_4(encoder: nn.Module, name: str) -> int:
    if 4 not in encoder.reductions:
        raise ConfigError(
            f"model.encoder={name} has no features of stride 4 (it has {encoder.reductions}), which the decoder needs; use resnet50"
        )
    return encoder.reductions.index(4)
