"""A ResNet made fully convolutional (Long et al. 2015) with dilated last stages, as in torchvision."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from segtrain.model.encoder import encoder_of
from segtrain.model.fcn_head import FCNHead
from segtrain.model.limits import check_dropout
from segtrain.model.network import Network
from segtrain.model.weights import load_encoder_weights
from segtrain.sample import Output


def fcn(
    out_channels: int,
    in_channels: int = 3,
    encoder: str = "resnet50",
    weights: str = "imagenet",
    output_stride: int = 8,
    contract_dilation: bool = True,
    multi_grid: tuple[int, ...] | None = None,
    aux: bool = False,
    dropout: float = 0.1,
) -> Network:
    """FCN on a dilated ResNet: two convolutions score the encoder's last features, and that is interpolated.

    Long et al. 2015 in the form of torchvision. With 21 classes: 32 957 013 parameters on resnet50 (with aux
    35 322 218), 51 949 141 on resnet101 (54 314 346).

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
        aux: train a second head on the last features but one (layer3 of a ResNet); loss.aux_weight weighs it
        dropout: probability that a value is dropped in training before the logits
    """
    net = FCN(
        Recipe(out_channels, in_channels, encoder, output_stride, contract_dilation, multi_grid, aux, dropout)
    )
    net.normalisation, net.weights_report = load_encoder_weights(net.encoder, encoder, weights, in_channels)
    return net


@dataclass(frozen=True)
class Recipe:
    """All that decides the shape of the network."""

    out_channels: int
    in_channels: int
    encoder: str
    output_stride: int
    contract_dilation: bool
    multi_grid: tuple[int, ...] | None
    aux: bool
    dropout: float

    def __post_init__(self):
        check_dropout(self.dropout)

    def at(self, output_stride: int) -> Recipe:
        return replace(self, output_stride=output_stride)


class FCN(Network):
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
        )
        self.head = FCNHead(self.encoder.channels[-1], recipe.out_channels, recipe.dropout)
        self.aux = FCNHead(self.encoder.channels[-2], recipe.out_channels) if recipe.aux else None

    @property
    def head_keys(self) -> tuple[str, ...]:
        """The tensors whose first dimension is the classes."""
        return tuple(
            f"{head}.logits.{kind}"
            for head in ("head", "aux")[: 1 + self.options.aux]
            for kind in ("weight", "bias")
        )

    def forward(self, x: torch.Tensor) -> Output:
        features = self.encoder(x)
        aux = (self.aux(features[-2]),) if self.aux is not None and self.training else ()
        return Output(self.head(features[-1]), tuple(x.shape[-2:]), aux)
