"""An encoder's last features together with finer ones, taken from the layers that torchvision takes them
from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


class Tap(NamedTuple):
    """Which finer features are taken: those of `index` among the encoder's features or, of a MobileNetV3, the
    output of a block of a stage.

    timm gives the output of the last block of a stage; of a MobileNetV3, torchvision takes the output of the
    first block, which has the stride. `index` is then a feature of the same stride and channels.
    """

    index: int
    stage: int | None = None
    block: int | None = None


def tap_at(encoder: nn.Module, name: str, stride: int) -> Tap:
    """The tap of the features of `stride`, at most the output stride; of a MobileNetV3 after the first block
    of that stride.

    name: name of the encoder.
    """
    index = encoder.reductions.index(stride)
    if not is_mobilenetv3(name):
        return Tap(index)
    reached = encoder.conv_stem.stride[0]
    for i, stage in enumerate(encoder.blocks):
        for j, block in enumerate(stage):
            for module in block.modules():
                reached *= module.stride[0] if isinstance(module, nn.Conv2d) else 1
            if reached == stride:
                return Tap(index, i, j)
    raise AssertionError(f"features of stride {stride} but no block of it")


def is_mobilenetv3(name: str) -> bool:
    """Whether the encoder of this name is a MobileNetV3. Its class does not tell: timm builds other networks
    of the same class whose first blocks have other strides and channels."""
    return "mobilenetv3" in name


def tapped(encoder: nn.Module, x: torch.Tensor, tap: Tap) -> tuple[torch.Tensor, torch.Tensor]:
    """The features at the tap and the last features of B×K×H×W images."""
    if tap.stage is None:
        features = encoder(x)
        return features[tap.index], features[-1]
    y, taken = encoder.act1(encoder.bn1(encoder.conv_stem(x))), None
    for i, stage in enumerate(encoder.blocks):
        for j, block in enumerate(stage):
            y = block(y)
            if (i, j) == (tap.stage, tap.block):
                taken = y
    return taken, y
