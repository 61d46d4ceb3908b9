"""U-Net (Ronneberger et al. 2015) on any encoder, padded and with batch normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.atrous import conv_norm_relu, head_of, initialise
from segtrain.model.encoder import encoder_of
from segtrain.model.weights import IMAGENET, adapted, load_encoder_weights
from segtrain.sample import Output

SMALL = "small"
DECODER_WIDTHS = (256, 128, 64, 32, 16)


def unet(
    out_channels: int,
    in_channels: int = 3,
    encoder: str = SMALL,
    weights: str | None = None,
    widths: tuple[int, ...] = (16, 32, 64, 128),
    decoder_widths: tuple[int, ...] | None = None,
    skips: bool = True,
) -> nn.Module:
    """U-Net: an encoder, and a decoder that gets the encoder's features of every resolution back.

    Ronneberger et al. 2015, with padding and batch normalisation. The decoder doubles the resolution (nearest) and
    convolves twice; the logits come at the image's size. Images are padded to a multiple of the encoder's last stride.
    resnet34 with 21 classes has 24 439 269 parameters, resnet50 32 524 005, as in segmentation_models_pytorch.

    Options:
        encoder: small (two 3x3 convolutions a level, learns on a laptop without published weights) or one of timm's
            names that takes an output stride (`segtrain list encoders`)
        weights: what the encoder starts from: imagenet, none, or the path of a .safetensors or .pth file;
            null is imagenet for timm's encoders and none for small, which has no published weights
        widths: channels of the small encoder's levels, finest first; each level halves the resolution
        decoder_widths: channels of the decoder's blocks, coarsest first; null is the small encoder's
            widths in reverse, or 256, 128, 64, 32, 16 for timm's
        skips: hand the encoder's features to the decoder; false is the same network without them, for comparison
    """
    net = UNet(out_channels, in_channels, encoder, widths, decoder_widths, skips)
    weights = weights or ("none" if encoder == SMALL else "imagenet")
    net.pretrained = weights != "none"
    if encoder == SMALL:
        if net.pretrained:
            raise ConfigError(f"model.weights={weights}: the small encoder has no published weights; use null or one of timm's encoders")
        net.normalisation = adapted(IMAGENET, in_channels)
        net.weights_report = "small encoder: starts from scratch (it has no published weights)"
    else:
        net.normalisation, net.weights_report = load_encoder_weights(net.encoder, encoder, weights, in_channels)
    return net


class SmallEncoder(nn.Module):
    """B×K×H×W -> features at stride 1, 2, 4 …: two convolutions a level, maximum pooling between levels."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]):
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ConfigError(f"model.widths is {list(widths)}; it needs at least two levels, each of 1 channel or more")
        self.channels, self.reductions = tuple(widths), tuple(2**level for level in range(len(widths)))
        inputs = (in_channels, *widths)
        self.levels = nn.ModuleList(double_conv(before, after) for before, after in zip(inputs, widths, strict=False))
        initialise(self)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = [self.levels[0](x)]
        for level in self.levels[1:]:
            features.append(level(F.max_pool2d(features[-1], 2)))
        return features


class UNet(nn.Module):
    """B×K×H×W -> Output with B×C×H×W logits, for any H and W; the arguments are the factory's options."""

    head_keys = ("head.weight", "head.bias")
    """The tensors whose first dimension is the classes."""

    def __init__(self, out_channels, in_channels, encoder, widths, decoder_widths, skips):
        super().__init__()
        small = encoder == SMALL
        self.encoder = SmallEncoder(in_channels, tuple(widths)) if small else encoder_of(encoder, in_channels, 32)
        self.stride = self.encoder.reductions[-1]
        decoder_widths = tuple(decoder_widths or (tuple(widths[-2::-1]) if small else DECODER_WIDTHS))
        # A timm encoder's features of stride 1 (VGG) stay unused, as in segmentation_models_pytorch.
        finest = 1 if small else 2
        self.skip_levels = _skip_levels(self.encoder.reductions, finest if skips else self.stride + 1, len(decoder_widths))
        skip_channels = [0 if level is None else self.encoder.channels[level] for level in self.skip_levels]
        inputs = (self.encoder.channels[-1], *decoder_widths)
        self.decoder = nn.ModuleList(
            double_conv(below + skip, width) for below, skip, width in zip(inputs, skip_channels, decoder_widths, strict=False)
        )
        initialise(self.decoder)
        self.head = head_of(decoder_widths[-1], out_channels, 3)

    def forward(self, x: torch.Tensor) -> Output:
        height, width = x.shape[-2:]
        features = self.encoder(F.pad(x, (0, -width % self.stride, 0, -height % self.stride)))
        y = features[-1]
        for block, level in zip(self.decoder, self.skip_levels, strict=True):
            y = F.interpolate(y, scale_factor=2, mode="nearest")
            y = block(y if level is None else torch.cat([y, features[level]], dim=1))
        return Output(self.head(y)[..., :height, :width], (height, width))


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(conv_norm_relu(in_channels, out_channels), conv_norm_relu(out_channels, out_channels))


def _skip_levels(reductions: tuple[int, ...], finest: int, num_blocks: int) -> list[int | None]:
    """For every block, coarsest first, the index of the encoder's feature at its resolution, None where there is none."""
    blocks = reductions[-1].bit_length() - 1
    if num_blocks != blocks:
        raise ConfigError(
            f"model.decoder_widths has {num_blocks} entries; the encoder halves the resolution {blocks} times and needs {blocks}"
        )
    strides = [reductions[-1] >> (block + 1) for block in range(blocks)]
    return [reductions.index(stride) if stride in reductions and stride >= finest else None for stride in strides]
