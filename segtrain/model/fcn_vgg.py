"""FCN-32s, FCN-16s and FCN-8s (Long, Shelhamer & Darrell 2015, "Fully convolutional networks for semantic
segmentation") on VGG16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from segtrain.model.encoder.vgg import VGG16, BilinearUpsampling, DropoutVGGOptions, load_vgg16_weights
from segtrain.model.network import Network
from segtrain.options import key, with_options
from segtrain.sample import Output

FIRST_PADDING = 100
"""Zeros around the image: of any image, features are then left for the 7×7 convolution, and the crops below
hit the image."""
SKIPS = (("score_pool4", 3, 5, 1e-2), ("score_pool3", 2, 9, 1e-4))
"""Name of the scoring layer, level of VGG16 whose features it takes, rows and columns cropped from its
scores, and the factor of the features with at_once."""
CROPS = {32: 19, 16: 27, 8: 31}
"""Rows and columns cropped from the result of the last upsampling, by its stride."""


@dataclass(frozen=True)
class SkipOptions(DropoutVGGOptions):
    """Options of FCN-16s and FCN-8s."""

    at_once: bool = key(
        False,
        "scale the features of the skip connections by 0.01 (pool4) and 0.0001 (pool3), to train without a "
        "coarser FCN before it",
    )


@with_options(DropoutVGGOptions)
def fcn32s(options: DropoutVGGOptions, out_channels: int, in_channels: int = 3) -> Network:
    """FCN-32s: VGG16 with convolutions for its classifier; logits at stride 32 are upsampled to the image.

    Long et al. 2015. With 21 classes: 134 346 581 parameters. The upsampling is bilinear and frozen, as in
    the published networks.
    """
    return _fcn(options, out_channels, in_channels, stride=32)


@with_options(SkipOptions)
def fcn16s(options: SkipOptions, out_channels: int, in_channels: int = 3) -> Network:
    """FCN-16s: FCN-32s with a skip connection from VGG16's fourth pooling, at stride 16.

    Long et al. 2015. With 21 classes: 134 357 354 parameters. It starts from an FCN-32s (init=RUN): the
    weights of the skip connection are initialised with 0.
    """
    return _fcn(options, out_channels, in_channels, stride=16, at_once=options.at_once)


@with_options(SkipOptions)
def fcn8s(options: SkipOptions, out_channels: int, in_channels: int = 3) -> Network:
    """FCN-8s: FCN-16s with a skip connection from VGG16's third pooling, at stride 8.

    Long et al. 2015. With 21 classes: 134 362 751 parameters. It starts from an FCN-16s (init=RUN): the
    weights of the new skip connection are initialised with 0.
    """
    return _fcn(options, out_channels, in_channels, stride=8, at_once=options.at_once)


def _fcn(options: DropoutVGGOptions, out_channels: int, in_channels: int, **kind) -> Network:
    net = FCN(options, out_channels, in_channels, **kind)
    net.normalisation, net.weights_report = load_vgg16_weights(
        net.encoder, options.weights, options.width, in_channels
    )
    return net


class FCN(Network):
    """B×K×H×W -> Output with B×C×H×W logits, for any H and W.

    The scores are upsampled here and not by the loss: the paper's frozen kernels and crops (the offsets of
    the published networks) differ from an interpolation to the image's size. All scoring layers are
    initialised with 0, so that a new skip connection does not change the output at first.
    """

    def __init__(
        self,
        options: DropoutVGGOptions,
        out_channels: int,
        in_channels: int,
        stride: Literal[8, 16, 32],
        at_once: bool = False,
    ):
        super().__init__()
        self.encoder = VGG16(
            in_channels, options.width, first_padding=FIRST_PADDING, ceil_mode=True, dropout=options.dropout
        )
        self.score_fr = _scores(self.encoder.channels[-1], out_channels)
        self.skips = SKIPS[: {32: 0, 16: 1, 8: 2}[stride]]
        for name, level, _, _ in self.skips:
            self.add_module(name, _scores(self.encoder.channels[level], out_channels))
        self.doubling = nn.ModuleList(BilinearUpsampling(out_channels, 2) for _ in self.skips)
        self.upscore = BilinearUpsampling(out_channels, stride)
        self.crop, self.at_once = CROPS[stride], at_once

    @property
    def head_keys(self) -> tuple[str, ...]:
        layers = ("score_fr", *(name for name, *_ in self.skips))
        return tuple(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))

    bias_keys = ("score_fr.bias",)

    def forward(self, x: torch.Tensor) -> Output:
        features = self.encoder(x)
        scores = self.score_fr(features[-1])
        for (name, level, offset, factor), double in zip(self.skips, self.doubling, strict=True):
            skip = self.get_submodule(name)(features[level] * factor if self.at_once else features[level])
            scores = double(scores)
            scores = scores + _cut(skip, offset, scores.shape[-2:])
        size = tuple(x.shape[-2:])
        return Output(_cut(self.upscore(scores), self.crop, size), size)


def _scores(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def _cut(x: torch.Tensor, offset: int, size: tuple[int, int]) -> torch.Tensor:
    """B×C×H×W -> B×C×size: the rows and columns from `offset` on."""
    return x[..., offset : offset + size[0], offset : offset + size[1]]
