"""VGG16 (Simonyan & Zisserman 2015) as a fully convolutional encoder: that of FCN, dilated convolutions and
DeconvNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.errors import CheckpointError, ConfigError
from segtrain.model.encoder.weights import IMAGENET, adapted, existing, hub_tensors
from segtrain.options import IS_PATH, SHARE, Limits, key
from segtrain.sample import Normalisation
from segtrain.tensors import read_weights

CHANNELS = (64, 128, 256, 512, 512)
"""Of the five levels, each of which ends with a pooling."""
DEPTHS = (2, 2, 3, 3, 3)
"""3×3 convolutions a level."""
FC_CHANNELS = 4096
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Places of the 13 convolutions in `features` of torchvision's and timm's VGG16."""
WIDTH = Limits("above 0 and at most 4", lambda value: 0 < value <= 4)
"""Channels of a network as a share of its paper's."""


@dataclass(frozen=True)
class VGGOptions:
    """Options of networks on VGG16."""

    weights: Annotated[str, IS_PATH] = key(
        "imagenet",
        "initial weights of VGG16: imagenet, none, or the path of torchvision's or timm's vgg16 (.pth, "
        ".safetensors)",
    )
    width: Annotated[float, WIDTH] = key(
        1.0, "channels of every layer as a share of the paper's; published weights need 1"
    )


@dataclass(frozen=True)
class DropoutVGGOptions(VGGOptions):
    """Options of networks on VGG16 with dropout after its fully connected layers, as published."""

    dropout: Annotated[float, SHARE] = key(
        0.5, "probability that a value of fc6 or fc7 is dropped in training"
    )


def scaled(channels: int, width: float) -> int:
    """`channels` of the paper in a network of this width: at least 1."""
    return max(1, round(channels * width))


class VGG16(nn.Module):
    """B×K×H×W -> six features: those of the five levels, each after its pooling if it has one, and fc7.

    The classifier's first two layers are convolutions: fc6 7×7 without padding, fc7 1×1 (Long et al. 2015,
    sec. 3.1). A network that needs more of the inside (indices of the pooling, say) runs `levels`, `fc6` and
    `fc7` itself.

    width: all numbers of channels as a share of the paper's.
    padding: padding of the 3×3 convolutions; 1 keeps H×W, 0 uses only real pixels.
    first_padding: padding of the first convolution, zeros around the image; None is `padding`.
    poolings: number of poolings that are kept, the first ones of five; each one left out doubles the dilation
        of all later convolutions.
    ceil_mode: poolings keep an odd last row and column, as Caffe's do.
    norm: batch normalisation before each ReLU.
    dropout: probability that a value of fc6 or fc7 is dropped in training.
    bias: biases of the convolutions.
    fc_channels: channels of fc6 and fc7; None is the paper's 4096 at this width.
    """

    def __init__(
        self,
        in_channels: int,
        width: float = 1.0,
        padding: int = 1,
        first_padding: int | None = None,
        poolings: int = 5,
        ceil_mode: bool = False,
        norm: bool = False,
        dropout: float = 0.5,
        bias: bool = True,
        fc_channels: int | None = None,
    ):
        super().__init__()
        if not 1 <= in_channels <= 10:
            raise ConfigError(f"the images have {in_channels} channels; an encoder takes 1 to 10")
        self.poolings, self.ceil_mode = poolings, ceil_mode
        self.channels = (
            *(scaled(channels, width) for channels in CHANNELS),
            fc_channels or scaled(FC_CHANNELS, width),
        )
        self.published_fc = fc_channels in (None, FC_CHANNELS)
        levels, before = [], in_channels
        for level, (channels, depth) in enumerate(zip(self.channels, DEPTHS, strict=False)):
            dilation = 2 ** max(0, level - poolings)
            inputs = (before, *[channels] * (depth - 1))
            levels.append(
                nn.Sequential(
                    *(
                        conv
                        for one in inputs
                        for conv in _conv(one, channels, 3, padding, dilation, norm, bias)
                    )
                )
            )
            before = channels
        self.levels = nn.ModuleList(levels)
        if first_padding is not None:
            self.levels[0][0].padding = (first_padding, first_padding)
        width6 = self.channels[-1]
        self.fc6 = nn.Sequential(
            *_conv(before, width6, 7, 0, 2 ** (len(CHANNELS) - poolings), norm, bias), nn.Dropout(dropout)
        )
        self.fc7 = nn.Sequential(*_conv(width6, width6, 1, 0, 1, norm, bias), nn.Dropout(dropout))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for level, convolutions in enumerate(self.levels):
            x = convolutions(x)
            if level < self.poolings:
                x = F.max_pool2d(x, 2, ceil_mode=self.ceil_mode)
            features.append(x)
        return [*features, self.fc7(self.fc6(x))]


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, padding: int, dilation: int, norm: bool, bias: bool
) -> list[nn.Module]:
    """A convolution with He initialisation, batch normalisation if `norm`, and ReLU."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, padding=padding * dilation, dilation=dilation, bias=bias
    )
    # By fan in: without normalisation the signal has to keep its scale through 15 layers.
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if bias:
        nn.init.zeros_(conv.bias)
    return [conv, *([nn.BatchNorm2d(out_channels)] if norm else []), nn.ReLU(inplace=True)]


# --- published weights


def load_vgg16_weights(net: VGG16, weights: str, width: float, in_channels: int) -> tuple[Normalisation, str]:
    """Loads pretrained weights into the convolutions of `net`; returns the normalisation of images that the
    weights were trained with, and one line about what was loaded.

    weights: "imagenet", "none" or the path of a .safetensors or .pth file with the tensors of torchvision's
    or timm's VGG16.
    """
    if weights == "none":
        return adapted(IMAGENET, in_channels), "VGG16: starts from scratch (weights=none)"
    if width != 1:
        raise ConfigError(
            f"model.width is {width} and model.weights {weights}: published weights have width 1; set "
            f"model.weights=none"
        )
    if weights == "imagenet":
        ways_out = (
            "use model.weights=none to start from scratch, or the path of torchvision's "
            "vgg16-397923af.pth as model.weights"
        )
        tensors, source = hub_tensors("vgg16", "VGG16", ways_out)
    else:
        tensors, source = read_weights(existing(weights)), weights
    found = as_convolutions(net, tensors, in_channels, source)
    net.load_state_dict(found, strict=False)
    fresh = (
        ""
        if net.published_fc
        else f"; fc6 and fc7, of {net.channels[-1]} channels and not {FC_CHANNELS}, start from scratch"
    )
    report = f"VGG16: {len(found)} of {len(found)} tensors from {source} (which holds {len(tensors)}){fresh}"
    return adapted(IMAGENET, in_channels), report


def as_convolutions(net: VGG16, tensors: dict, in_channels: int, source: str) -> dict[str, torch.Tensor]:
    """The tensors of the image classifier VGG16 by the names of `net`'s convolutions, views where possible;
    CheckpointError if one is missing.

    fc6 and fc7 are left out if `net` has another number of channels there, and biases where `net` has none. A
    fully connected layer over C×7×7 features is a 7×7 convolution with the same weights (Long et al. 2015,
    sec. 3.1).
    """
    from timm.models import adapt_input_conv

    sources = [f"features.{place}" for place in CONVOLUTIONS]
    sources += (
        ["pre_logits.fc1", "pre_logits.fc2"]
        if "pre_logits.fc1.weight" in tensors
        else ["classifier.0", "classifier.3"]
    )
    convolutions = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    taken = len(sources) if net.published_fc else len(CONVOLUTIONS)
    found, bad = {}, []
    for (name, conv), there in zip(convolutions[:taken], sources[:taken], strict=True):
        weight, bias = tensors.get(f"{there}.weight"), tensors.get(f"{there}.bias")
        if weight is not None and there == sources[0] and weight.ndim == 4 and in_channels != 3:
            weight = adapt_input_conv(in_channels, weight)
        for kind, tensor, own in (("weight", weight, conv.weight), ("bias", bias, conv.bias)):
            if own is None:  # in front of batch normalisation, which takes any bias out again
                continue
            flat = (own.shape[0], own[0].numel()) if own.ndim == 4 else own.shape
            if tensor is None or tuple(tensor.shape) not in (tuple(own.shape), tuple(flat)):
                bad.append(f"{there}.{kind}")
            else:
                found[f"{name}.{kind}"] = tensor.reshape(own.shape)
    if bad:
        raise CheckpointError(
            f"{source} does not fit VGG16: {len(found)} of {len(found) + len(bad)} tensors found with the "
            f"right shape, missing is {bad[0]} "
            f"and {len(bad) - 1} more; give torchvision's or timm's vgg16 (without batch normalisation), "
            f"or model.weights=none"
        )
    return found


# --- bilinear interpolation as a transposed convolution


def bilinear_kernel(size: int) -> torch.Tensor:
    """size×size: 1 - |i - c| / f along each axis, f = (size + 1) // 2 and c the middle (Caffe's `bilinear`
    filler)."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    line = 1 - (torch.arange(size) - centre).abs() / factor
    return line[:, None] * line[None, :]


class BilinearUpsampling(nn.Module):
    """B×C×h×w -> B×C×(h+1)·stride×(w+1)·stride: a frozen depthwise transposed convolution.

    But for a border of `stride` pixels it is bilinear interpolation (align_corners=False), shifted by
    stride/2. The kernel is a buffer that is not saved: it follows from the arguments.
    """

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.register_buffer(
            "kernel", bilinear_kernel(2 * stride).repeat(channels, 1, 1, 1), persistent=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv_transpose2d(x, self.kernel, stride=self.stride, groups=len(self.kernel))
