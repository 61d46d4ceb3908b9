"""DeepLabv3+ (Chen et al. 2018, "Encoder-decoder with atrous separable convolution for semantic image
segmentation")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.aspp import ASPP, rates_at, rescaled
from segtrain.model.atrous import conv_norm_relu, head_of, initialise, start_at_centre
from segtrain.model.encoder import encoder_of
from segtrain.model.limits import check_counts, check_dropout, check_rates
from segtrain.model.network import Network
from segtrain.model.separable import Form, separable
from segtrain.model.weights import load_encoder_weights
from segtrain.sample import Output


def deeplabv3plus(
    out_channels: int,
    in_channels: int = 3,
    encoder: str = "resnet50",
    weights: str = "imagenet",
    output_stride: int = 16,
    contract_dilation: bool = True,
    multi_grid: tuple[int, ...] | None = None,
    rates: tuple[int, ...] | None = None,
    aspp_width: int = 256,
    aspp_conv: bool = False,
    low_level_width: int = 48,
    decoder_width: int = 256,
    decoder_convs: int = 2,
    middle_width: int | None = None,
    fine_width: int | None = None,
    separable: bool = False,
    separable_form: Form = "tf",
    image_pooling: bool = True,
    dropout: float = 0.1,
    aspp_start: Literal["kaiming", "centre"] = "kaiming",
    align_corners: bool = False,
) -> Network:
    """DeepLabv3+: atrous pyramid pooling on any encoder, with a small decoder that sharpens the borders.

    Chen et al. 2018. The logits come at stride 4, or at 2 with fine_width. With resnet50, 21 classes: 40 352
    181 parameters.

    Options:
        encoder: one of timm's names that takes an output stride (`segtrain list encoders`)
        weights: what the encoder starts from: imagenet, none, or the path of a .safetensors or .pth file
        output_stride: how much smaller than the image the encoder's last features are: 8, 16 or 32
        contract_dilation: let the first convolution of a stage without its stride keep the dilation of the
            stage before, so that every output stride computes the same function (not with squeeze-excitation
            or anti-aliasing, nor tf_ encoders at even sizes and ConvNeXt at 8); false for weights that were
            trained otherwise
        multi_grid: factors of the dilation of the units of a ResNet's last block, such as [1, 2, 4]; null
            follows contract_dilation
        rates: distances of the taps of the pyramid's 3x3 convolutions; null is 6, 12, 18 at output stride 16,
            twice that at 8 and half of it at 32
        aspp_width: channels of each branch of the pyramid and of its output
        aspp_conv: a further 3x3 convolution between the pyramid and the decoder, as in
            segmentation_models_pytorch
        low_level_width: channels to which the encoder's features of stride 4 are reduced
        decoder_width: channels of the decoder's 3x3 convolutions
        decoder_convs: number of the decoder's 3x3 convolutions
        middle_width: channels to which the encoder's features of stride 8 are reduced, which then join the
            pyramid's output in a 3x3 convolution before those of stride 4 do (Panoptic-DeepLab, Cheng et al.
            2020); null leaves them out, as in the paper
        fine_width: channels of a second decoder stage at stride 2, for things a few pixels wide (DeepLab's
            code with decoder_output_stride 4,2, here narrower); null ends at stride 4, as in the paper
        separable: make the pyramid's and the decoder's 3x3 convolutions depthwise separable
        separable_form: where batch normalisation and ReLU stand in them: tf (after both parts),
            xception (ReLU in front, normalisation after both), plain (after the second part only)
        image_pooling: let the pyramid see the mean over the image
        dropout: probability that a channel value of the pyramid's output is dropped in training
        aspp_start: what the pyramid's 3x3 weights are drawn from; centre sets all taps but the middle one to
            0, which short runs on crops smaller than the pyramid's reach need
        align_corners: interpolate from corner to corner, for weights of segmentation_models_pytorch or
            TensorFlow
    """
    form = separable_form if separable else None
    net = DeepLabV3Plus(
        Recipe(
            out_channels, in_channels, encoder, output_stride, contract_dilation, multi_grid,
            rates, aspp_width,
            aspp_conv, low_level_width, decoder_width, decoder_convs, middle_width, fine_width,
            form, image_pooling,
            dropout, align_corners,
        )
    )  # fmt: skip
    if aspp_start == "centre":
        start_at_centre(net.aspp)
    net.normalisation, net.weights_report = load_encoder_weights(net.encoder, encoder, weights, in_channels)
    return net


@dataclass(frozen=True)
class Recipe:
    """All that decides the shape of the network and what it computes; separable_form is None for dense
    convolutions."""

    out_channels: int
    in_channels: int
    encoder: str
    output_stride: int
    contract_dilation: bool
    multi_grid: tuple[int, ...] | None
    rates: tuple[int, ...] | None
    aspp_width: int
    aspp_conv: bool
    low_level_width: int
    decoder_width: int
    decoder_convs: int
    middle_width: int | None
    fine_width: int | None
    separable_form: Form | None
    image_pooling: bool
    dropout: float
    align_corners: bool
    given: tuple[tuple[int, ...] | None, int] | None = field(default=None, compare=False)
    """The rates as they were given, and for which output stride: rounded ones would not find their way
    back."""

    def __post_init__(self):
        check_counts(
            **{
                name: getattr(self, name)
                for name in ("aspp_width", "low_level_width", "decoder_width", "decoder_convs")
            }
        )
        for name in ("middle_width", "fine_width"):
            width = getattr(self, name)
            if width is not None and width < 1:
                raise ConfigError(f"model.{name} is {width}; allowed: an integer from 1, or null")
        check_rates(self.rates)
        check_dropout(self.dropout)

    def at(self, output_stride: int) -> Recipe:
        """The recipe at another output stride: the rates go on to span the same number of the image's
        pixels."""
        given = self.given or (self.rates, self.output_stride)
        return replace(self, output_stride=output_stride, rates=rescaled(*given, output_stride), given=given)


class DeepLabV3Plus(Network):
    """B×K×H×W -> Output with B×C×ceil(H/4)×ceil(W/4) logits, or at stride 2 with a fine stage, for any H and
    W.

    head_keys: the tensors whose first dimension is the classes.
    """

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.options = recipe
        self.encoder = encoder_of(
            recipe.encoder,
            recipe.in_channels,
            recipe.output_stride,
            recipe.contract_dilation,
            recipe.multi_grid,
        )
        self.low_index = _level_of_stride(4, self.encoder, recipe.encoder)
        conv = partial(separable, form=recipe.separable_form) if recipe.separable_form else conv_norm_relu
        rates = rates_at(recipe.output_stride) if recipe.rates is None else recipe.rates
        self.aspp = ASPP(
            self.encoder.channels[-1], recipe.aspp_width, rates, recipe.image_pooling, recipe.dropout, conv
        )
        self.aspp_conv = (
            conv(recipe.aspp_width, recipe.aspp_width, 3, 1) if recipe.aspp_conv else nn.Identity()
        )
        self.middle = None
        if recipe.middle_width is not None:
            self.middle_index = _level_of_stride(8, self.encoder, recipe.encoder)
            middle_channels = self.encoder.channels[self.middle_index]
            self.middle = Joined(
                recipe.aspp_width, middle_channels, recipe.middle_width, recipe.align_corners, conv
            )
        self.low_level = conv_norm_relu(self.encoder.channels[self.low_index], recipe.low_level_width, 1)
        inputs = (
            recipe.aspp_width + recipe.low_level_width,
            *[recipe.decoder_width] * (recipe.decoder_convs - 1),
        )
        self.decoder = nn.Sequential(*(conv(channels, recipe.decoder_width, 3, 1) for channels in inputs))
        for part in (self.aspp, self.aspp_conv, self.low_level, self.decoder):
            initialise(part)
        self.head = head_of(recipe.decoder_width, recipe.out_channels)
        self.fine, self.head_keys = None, ("head.weight", "head.bias")
        if recipe.fine_width is not None:
            self.head_keys += ("fine.head.weight", "fine.head.bias")
            self.fine_index = _level_of_stride(2, self.encoder, recipe.encoder)
            low_channels = self.encoder.channels[self.fine_index]
            self.fine = FineStage(
                recipe.decoder_width,
                low_channels,
                recipe.fine_width,
                recipe.out_channels,
                conv,
                recipe.align_corners,
            )

    def forward(self, x: torch.Tensor) -> Output:
        features = self.encoder(x)
        low = self.low_level(features[self.low_index])
        high = self.aspp_conv(self.aspp(features[-1]))
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
    """B×D×h×w of the pyramid and the encoder's B×E×H×W of a finer stride -> B×D×H×W of both."""

    def __init__(self, channels: int, fine_channels: int, width: int, align_corners: bool, conv: Callable):
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
    """B×C×h×w logits with their B×D×h×w features, and the encoder's features at twice that size -> B×C×2h×2w
    logits.

    What it adds to the upsampled logits comes through `width` channels: at this size a channel costs four
    times what it does at stride 4, and logits that had to pass so few of them would lose the rare classes.
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
        both = torch.cat([logits, self.reduce(x)], dim=1)
        both = F.interpolate(both, size=low.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        logits, high = both.split([logits.shape[1], low.shape[1]], dim=1)
        return logits + self.head(self.convs(torch.cat([high, low], dim=1)))


def _level_of_stride(stride: int, encoder: nn.Module, name: str) -> int:
    if stride not in encoder.reductions:
        raise ConfigError(
            f"model.encoder={name} has no features of stride {stride} (it has {encoder.reductions}), which "
            f"the decoder needs; use model.encoder=resnet50"
        )
    return encoder.reductions.index(stride)
