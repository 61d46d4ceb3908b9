"""Networks on an encoder whose output stride can be chosen: the options that they share, and how to change
the output stride of a trained network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import torch

from segtrain.errors import ConfigError
from segtrain.model.encoder.timm_encoder import encoder_of
from segtrain.model.encoder.weights import load_encoder_weights
from segtrain.model.network import Network
from segtrain.model.parts.limits import EPS, RATE
from segtrain.model.parts.norm import freeze_batch_norm, is_frozen
from segtrain.options import IS_PATH, key


@dataclass(frozen=True)
class EncoderOptions:
    """Options of networks on an encoder with a chosen output stride."""

    encoder: str = key(
        "resnet50", "name of a network of timm that takes an output stride (`segtrain list encoders`)"
    )
    weights: Annotated[str, IS_PATH] = key(
        "imagenet",
        "initial weights of the encoder: imagenet, none, or the path of a .safetensors or .pth file",
    )
    output_stride: Literal[8, 16, 32] = key(
        16, "side of the image divided by the side of the encoder's last features: 8, 16 or 32"
    )
    contract_dilation: bool = key(
        True,
        "true: in a stage without its stride, the first convolution keeps the dilation of the stage before, "
        "so that every output stride computes the same function (not with squeeze-excitation or "
        "anti-aliasing, nor tf_ encoders at even sizes and ConvNeXt at 8); false: all convolutions of a "
        "stage have the same dilation, for weights trained so (torchvision's MobileNetV3, "
        "segmentation_models_pytorch)",
    )

    def at(self, output_stride: int) -> Self:
        """The options of the same network at another output stride."""
        return replace(self, output_stride=output_stride)


@dataclass(frozen=True)
class MultiGridOptions(EncoderOptions):
    """Options of networks that may have a multi-grid (Chen et al. 2017, "Rethinking atrous convolution",
    sec. 3.2.1)."""

    multi_grid: tuple[Annotated[int, RATE], ...] | None = key(
        None,
        "multi-grid: factors of the dilation, one for each unit of a ResNet's last block, such as [1, 2, 4]; "
        "null: contract_dilation decides",
    )


@dataclass(frozen=True)
class NormEpsOptions:
    """Options of networks that may change the encoder's batch normalisation."""

    norm_eps: Annotated[float, EPS] | None = key(
        None,
        "eps of the encoder's batch normalisation, which is added to the variance; null: timm's; "
        "torchvision's MobileNetV3 has 0.001",
    )


class StridedNetwork(Network):
    """A network on an encoder with a chosen output stride, randomly initialised.

    encoder_keywords: further keywords of `encoder_of`.
    """

    options: EncoderOptions

    def __init__(self, options: EncoderOptions, out_channels: int, in_channels: int, **encoder_keywords):
        super().__init__()
        self.options, self.out_channels, self.in_channels = options, out_channels, in_channels
        # Options at other output strides are derived from those that were typed: rates are rounded only once.
        self.typed_options = options
        self.encoder = encoder_of(
            options.encoder,
            in_channels,
            output_stride=min(options.output_stride, 32),
            contract_dilation=options.contract_dilation,
            **encoder_keywords,
        )

    def with_weights(self) -> Self:
        """This network, its encoder filled with the pretrained weights that the options ask for."""
        self.normalisation, self.weights_report = load_encoder_weights(
            self.encoder, self.options.encoder, self.options.weights, self.in_channels
        )
        return self


def at_output_stride(net: Network, output_stride: int) -> Network:
    """A network with another output stride that shares all tensors with `net`: training one changes the
    other.

    Rates of dilation follow the output stride. Training modes and frozen batch normalisation are those of
    `net`. ConfigError if the output stride of `net` cannot be chosen.
    """
    if not isinstance(net, StridedNetwork):
        raise ConfigError(
            f"model.output_stride is not an option of {type(net).__name__}: its features come at the "
            f"strides of its paper"
        )
    with torch.device("meta"):
        twin = type(net)(net.typed_options.at(output_stride), net.out_channels, net.in_channels)
    twin.typed_options = net.typed_options
    _share_tensors(net, twin)
    for name, module in net.named_modules():
        copy = twin.get_submodule(name)
        copy.training = module.training
        if is_frozen(module):
            freeze_batch_norm(copy)
    twin.normalisation, twin.weights_report = net.normalisation, net.weights_report
    return twin


def _share_tensors(net: Network, twin: Network) -> None:
    sources = dict(net.named_parameters())
    for name, parameter in twin.named_parameters():
        # load_state_dict would otherwise set the flag of the shared parameter to that of the twin's new one.
        parameter.requires_grad_(sources[name].requires_grad)
    twin.load_state_dict(net.state_dict(keep_vars=True), assign=True)
    saved = twin.state_dict().keys()
    for name, buffer in net.named_buffers():
        if name not in saved:
            owner, _, attribute = name.rpartition(".")
            setattr(twin.get_submodule(owner), attribute, buffer)
