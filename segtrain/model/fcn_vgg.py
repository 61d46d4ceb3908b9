"""FCN-32s, FCN-16s and FCN-8s (Long, Shelhamer & Darrell 2015, "Fully convolutional networks for semantic
segmentation") on VGG16."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from segtrain.model.network import Network
from segtrain.model.vgg import VGG16, BilinearUpsampling, load_vgg16_weights
from segtrain.sample import Output

FIRST_PADDING = 100
"""Zeros around the image: any image then leaves something for the 7×7 convolution, and the crops below land
on it."""
SKIPS = (("score_pool4", 3, 5, 1e-2), ("score_pool3", 2, 9, 1e-4))
"""Layer, level of VGG16 that it scores, rows and columns cut off its scores, and the factor of its features
when trained at once."""
CROPS = {32: 19, 16: 27, 8: 31}
"""By the stride of the last upsampling: rows and columns cut off its result."""


def fcn32s(
    out_channels: int,
    in_channels: int = 3,
    weights: str = "imagenet",
    width: float = 1.0,
    dropout: float = 0.5,
) -> Network:
    """FCN-32s: VGG16 with convolutions for its classifier, scored at stride 32 and interpolated to the image.

    Long et al. 2015. With 21 classes: 134 346 581 parameters. The upsampling is bilinear and frozen, as in
    the published networks.

    Options:
        weights: what VGG16 starts from: imagenet, none, or the path of torchvision's or timm's vgg16 (.pth,
            .safetensors)
        width: channels of every layer as a share of the paper's; published weights need 1
        dropout: probability that a value of fc6 or fc7 is dropped in training
    """
    return _fcn(out_channels, in_channels, 32, weights, width, dropout)


def fcn16s(
    out_channels: int,
    in_channels: int = 3,
    weights: str = "imagenet",
    width: float = 1.0,
    dropout: float = 0.5,
    at_once: bool = False,
) -> Network:
    """FCN-16s: FCN-32s with the scores of VGG16's fourth pooling added at stride 16.

    Long et al. 2015. With 21 classes: 134 357 354 parameters. It starts from an FCN-32s (init=RUN): the new
    scores begin at 0.

    Options:
        weights: what VGG16 starts from: imagenet, none, or the path of torchvision's or timm's vgg16 (.pth,
            .safetensors)
        width: channels of every layer as a share of the paper's; published weights need 1
        dropout: probability that a value of fc6 or fc7 is dropped in training
        at_once: scale the features of the skip by 0.01, to train without an FCN-32s before it
    """
    return _fcn(out_channels, in_channels, 16, weights, width, dropout, at_once)


def fcn8s(
    out_channels: int,
    in_channels: int = 3,
    weights: str = "imagenet",
    width: float = 1.0,
    dropout: float = 0.5,
    at_once: bool = False,
) -> Network:
    """FCN-8s: FCN-16s with the scores of VGG16's third pooling added at stride 8.

    Long et al. 2015. With 21 classes: 134 362 751 parameters. It starts from an FCN-16s (init=RUN): the new
    scores begin at 0.

    Options:
        weights: what VGG16 starts from: imagenet, none, or the path of torchvision's or timm's vgg16 (.pth,
            .safetensors)
        width: channels of every layer as a share of the paper's; published weights need 1
        dropout: probability that a value of fc6 or fc7 is dropped in training
        at_once: scale the features of the skips by 0.01 and 0.0001, to train without an FCN-32s and an
            FCN-16s before it
    """
    return _fcn(out_channels, in_channels, 8, weights, width, dropout, at_once)


def _fcn(out_channels, in_channels, stride, weights, width, dropout, at_once=False) -> Network:
    net = FCN(out_channels, in_channels, stride, width, dropout, at_once)
    net.normalisation, net.weights_report = load_vgg16_weights(net.encoder, weights, width, in_channels)
    return net


class FCN(Network):
    """B×K×H×W -> Output with B×C×H×W logits, for any H and W.

    The scores are upsampled here and not by the loss: the paper's frozen kernels and its crops (the offsets
    of the published networks) are not what an interpolation to the image's size gives. All scores start at 0,
    so that a skip changes nothing at first.
    """

    def __init__(
        self,
        out_channels: int,
        in_channels: int,
        stride: Literal[8, 16, 32],
        width: float,
        dropout: float,
        at_once: bool,
    ):
        super().__init__()
        self.encoder = VGG16(in_channels, width, first_padding=FIRST_PADDING, ceil_mode=True, dropout=dropout)
        self.score_fr = _scores(self.encoder.channels[-1], out_channels)
        self.skips = SKIPS[: {32: 0, 16: 1, 8: 2}[stride]]
        for name, level, _, _ in self.skips:
            self.add_module(name, _scores(self.encoder.channels[level], out_channels))
        self.doubling = nn.ModuleList(BilinearUpsampling(out_channels, 2) for _ in self.skips)
        self.upscore = BilinearUpsampling(out_channels, stride)
        self.crop, self.at_once = CROPS[stride], at_once

    @property
    def head_keys(self) -> tuple[str, ...]:
        """The tensors whose first dimension is the classes."""
        layers = ("score_fr", *(name for name, *_ in self.skips))
        return tuple(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))

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
    """The rows and columns from `offset` on, as many as `size` says."""
    return x[..., offset : offset + size[0], offset : offset + size[1]]
