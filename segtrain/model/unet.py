"""U-Net (Ronneberger et al. 2015) on any encoder, padded and with batch normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.errors import ConfigError, SizeError
from segtrain.model.encoder.timm_encoder import encoder_of
from segtrain.model.encoder.weights import IMAGENET, adapted, load_encoder_weights
from segtrain.model.network import Network
from segtrain.model.parts.atrous import conv_norm_relu, head_of, initialise
from segtrain.options import IS_PATH, Length, between, key, with_options
from segtrain.sample import Output

SMALL = "small"
LEVEL_CHANNELS = between(1, 1024)
"""Of one level; the lowest level of the paper has 1024."""
DECODER_WIDTHS = (256, 128, 64, 32, 16)


@dataclass(frozen=True)
class Options:
    """Options of U-Net."""

    encoder: str = key(
        SMALL,
        "small (two 3x3 convolutions a level, trained from scratch on a laptop) or the name of a network of "
        "timm (`segtrain list encoders`)",
    )
    weights: Annotated[str, IS_PATH] | None = key(
        None,
        "initial weights of the encoder: imagenet, none, or the path of a .safetensors or .pth file; null: "
        "imagenet for timm's encoders, none for small, which has no published weights",
    )
    widths: Annotated[tuple[Annotated[int, LEVEL_CHANNELS], ...], Length(2, 10)] = key(
        (16, 32, 64, 128), "channels of the small encoder's levels, finest first; each halves the resolution"
    )
    stem_stride: Literal[1, 2] = key(
        2,
        "stride of the small encoder's first convolution. 2: features and logits start at half the image's "
        "resolution, four times as fast; 1: at the image's own",
    )
    decoder_widths: tuple[Annotated[int, LEVEL_CHANNELS], ...] | None = key(
        None,
        "channels of the decoder's blocks, coarsest first; null: the small encoder's widths in reverse, or "
        "256, 128, 64, 32, 16 for timm's encoders",
    )
    skips: bool = key(
        True, "skip connections from encoder to decoder; false: the same network without them, to compare"
    )


@with_options(Options)
def unet(options: Options, out_channels: int, in_channels: int = 3) -> Network:
    """U-Net: an encoder, and a decoder with skip connections from every resolution of the encoder.

    Ronneberger et al. 2015, with padding and batch normalisation. The decoder doubles the resolution
    (nearest) and convolves twice; the logits come at the resolution of its last block. Images are padded to
    a multiple of the encoder's last stride, or to another size that the encoder needs. resnet34 with 21
    classes has 24 439 269 parameters, resnet50 32 524 005, as in segmentation_models_pytorch.
    """
    net = UNet(options, out_channels, in_channels)
    weights = options.weights or ("none" if options.encoder == SMALL else "imagenet")
    if options.encoder == SMALL:
        if weights != "none":
            raise ConfigError(
                f"model.weights={weights}: the small encoder has no published weights; use "
                f"model.weights=null, or one of timm's encoders such as model.encoder=resnet18"
            )
        net.normalisation = adapted(IMAGENET, in_channels)
        net.weights_report = "small encoder: starts from scratch (it has no published weights)"
    else:
        net.normalisation, net.weights_report = load_encoder_weights(
            net.encoder, options.encoder, weights, in_channels
        )
    return net


class SmallEncoder(nn.Module):
    """B×K×H×W -> features at the stem's stride and at every doubling of it, finest first: two convolutions a
    level, max pooling between levels."""

    def __init__(self, in_channels: int, widths: tuple[int, ...], stem_stride: int):
        super().__init__()
        self.channels, self.reductions = (
            tuple(widths),
            tuple(stem_stride * 2**level for level in range(len(widths))),
        )
        self.sides = (self.reductions[-1], self.reductions[-1])
        inputs = (in_channels, *widths)
        self.levels = nn.ModuleList(
            double_conv(before, after) for before, after in zip(inputs, widths, strict=False)
        )
        self.levels[0][0][0].stride = (stem_stride, stem_stride)
        initialise(self)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = [self.levels[0](x)]
        for level in self.levels[1:]:
            features.append(level(F.max_pool2d(features[-1], 2)))
        return features


class UNet(Network):
    """B×K×H×W -> Output, for any H and W, with logits at the image's size or, of the small encoder, at the
    stem's stride."""

    head_keys = ("head.weight", "head.bias")

    def __init__(self, options: Options, out_channels: int, in_channels: int):
        super().__init__()
        small = options.encoder == SMALL
        self.encoder = (
            SmallEncoder(in_channels, options.widths, options.stem_stride)
            if small
            else encoder_of(options.encoder, in_channels, 32, any_size=False)
        )
        reductions = self.encoder.reductions
        self.encoder_stride, self.logit_stride = reductions[-1], options.stem_stride if small else 1
        decoder_widths = options.decoder_widths
        if decoder_widths is None:
            decoder_widths = options.widths[-2::-1] if small else DECODER_WIDTHS
        # With timm's encoders the decoder ends at the image's size, and features of stride 1 (VGG) are not
        # used, as in segmentation_models_pytorch.
        strides = _halvings(self.encoder_stride, self.logit_stride)
        _check_widths(decoder_widths, strides)
        skips_from = strides if small else strides[:-1]
        self.skip_levels = [
            reductions.index(s) if options.skips and s in skips_from and s in reductions else None
            for s in strides
        ]
        skip_channels = [0 if level is None else self.encoder.channels[level] for level in self.skip_levels]
        deepest = self.encoder.channels[-1]
        # VGG's last feature is the output of a pooling, with no convolution after it.
        self.centre = double_conv(deepest, deepest) if options.encoder.startswith("vgg") else nn.Identity()
        inputs = (deepest, *decoder_widths)
        self.decoder = nn.ModuleList(
            double_conv(below + skip, width)
            for below, skip, width in zip(inputs, skip_channels, decoder_widths, strict=False)
        )
        initialise(self.centre)
        initialise(self.decoder)
        self.head = head_of(decoder_widths[-1], out_channels, 3)

    def forward(self, x: torch.Tensor) -> Output:
        height, width = x.shape[-2:]
        features = self.encoder(F.pad(x, (0, self._missing(width), 0, self._missing(height))))
        y = self.centre(features[-1])
        for block, level in zip(self.decoder, self.skip_levels, strict=True):
            y = F.interpolate(y, scale_factor=2, mode="nearest")  # B×D×2h×2w
            y = block(y if level is None else torch.cat([y, features[level]], dim=1))
        return Output(self._cropped(self.head(y), height, width), (height, width))

    def _missing(self, length: int) -> int:
        """Pixels that lack to the next side that the encoder takes; SizeError if there is none."""
        first, step = self.encoder.sides
        if step:
            return -length % step
        if length > first:
            raise SizeError(
                f"the network gets images with a side of {length} px; its encoder takes up to {first} px: "
                f"set augmentation.warp.size and predictor.tile to {first} or less, or use another "
                f"model.encoder"
            )
        return first - length

    def _cropped(self, logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The logits of the image without its padding: at their own stride if that divides height and width,
        else at the image's size."""
        stride = self.logit_stride
        if height % stride or width % stride:
            logits = F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
            stride = 1
        return logits[..., : height // stride, : width // stride]


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv_norm_relu(in_channels, out_channels), conv_norm_relu(out_channels, out_channels)
    )


def _halvings(coarsest: int, finest: int) -> list[int]:
    """The strides after each doubling of the resolution: [8, 4, 2] from 16 to 2."""
    return [coarsest >> block for block in range(1, (coarsest // finest).bit_length())]


def _check_widths(decoder_widths: tuple[int, ...], strides: list[int]) -> None:
    if len(decoder_widths) != len(strides):
        raise ConfigError(
            f"model.decoder_widths is {list(decoder_widths)}; this encoder needs {len(strides)} numbers of "
            f"channels, "
            f"one for each resolution of the decoder (strides {strides})"
        )
