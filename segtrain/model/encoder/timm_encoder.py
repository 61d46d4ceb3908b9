"""Encoders: image classification networks of timm that return the features of every stage, at a chosen
output stride.

timm is imported inside the functions, because that takes seconds and neither `segtrain list` nor the small
encoder of U-Net needs it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segtrain.errors import ConfigError, nearest

STRIDE = 32
"""Of the last features of a network without dilation."""


REFUSALS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What networks of timm raise for options or images that they do not take."""


def encoder_of(
    name: str,
    in_channels: int,
    output_stride: int,
    contract_dilation: bool = True,
    multi_grid: tuple[int, ...] | None = None,
    norm_eps: float | None = None,
    any_size: bool = True,
) -> nn.Module:
    """timm's network `name` without its classifier, randomly initialised: B×K×H×W -> a list of features,
    finest first.

    Attributes: `channels` and `reductions` hold, for every feature, its channels and the image's side divided
    by its side. `sides` is (first, step): it takes images whose sides are first + k·step pixels, or only of
    side `first` if step is 0.

    A stage whose stride is removed for the sake of the output stride dilates its convolutions instead, its
    first one still with the dilation of the stage before (the contracted rule of DeepLab's code), so that the
    network computes the same function of its input, on a finer grid. It does not where other things depend on
    the grid: squeeze-excitation, anti-aliasing, the padding of tf_ networks at even sizes, ConvNeXt's at
    output stride 8.

    contract_dilation: False gives the first convolution the stage's own dilation too
        (segmentation_models_pytorch; torchvision's MobileNetV3): another function, for weights trained so.
    multi_grid: one factor for each unit of a ResNet's last block. The unit's spatial convolutions get 32 /
        output_stride times it as dilation (Chen et al. 2017, "Rethinking atrous convolution", sec. 3.2.1),
        whatever contract_dilation says.
    norm_eps: eps of batch normalisation; None leaves timm's.
    any_size: refuse encoders that take images of certain sides only.
    ConfigError for an encoder, or an output stride of it, that does not exist.
    """
    if not 1 <= in_channels <= 10:
        raise ConfigError(f"the images have {in_channels} channels; an encoder takes 1 to 10")
    check_name(name)
    try:
        features = _create(name, in_channels, output_stride)
    except REFUSALS as error:
        raise ConfigError(_unsupported(name, output_stride)) from error
    info = features.feature_info
    features.channels, features.reductions = tuple(info.channels()), tuple(info.reduction())
    if features.reductions[-1] != output_stride or len(features.reductions) < 3:
        raise ConfigError(_unsupported(name, output_stride))
    if str(getattr(features, "output_fmt", "NCHW")).endswith("NHWC"):
        features.register_forward_hook(_channels_first)
    features.sides = _valid_sides(features, name, in_channels)
    if any_size and features.sides[1] != STRIDE:
        raise ConfigError(
            f"model.encoder={name} takes images of certain sides only, but this network takes any; use "
            f"model=unet or model.encoder=resnet50"
        )
    if contract_dilation:
        _dilate_averages(features, output_stride)
    else:
        _dilate_firsts(features, name, in_channels, output_stride)
    if multi_grid is not None:
        _set_multi_grid(features, name, output_stride, multi_grid)
    if norm_eps is not None:
        _set_norm_eps(features, norm_eps)
    return features


def _create(name: str, in_channels: int, output_stride: int) -> nn.Module:
    import timm

    # Many networks know no such keyword, but have features of stride 32.
    keywords = {} if output_stride == STRIDE else {"output_stride": output_stride}
    return timm.create_model(name, pretrained=False, features_only=True, in_chans=in_channels, **keywords)


def _channels_first(module: nn.Module, inputs, features: list[torch.Tensor]) -> list[torch.Tensor]:
    """Forward hook: B×h×w×D -> B×D×h×w."""
    return [feature.permute(0, 3, 1, 2) for feature in features]


def _valid_sides(features: nn.Module, name: str, in_channels: int) -> tuple[int, int]:
    """(first, step) of the sides of images that the encoder takes; ConfigError if there are none."""
    import timm

    own = timm.get_pretrained_cfg(name).input_size[-1]
    # Windows of attention, or patches of pixels, have to fill the features of stride 32.
    for step in (STRIDE, 2 * STRIDE, own):
        if _has_features(features, in_channels, 3 * step, 5 * step):
            return step, step
    # Tables of positions have the size of the image.
    if _has_features(features, in_channels, own, own):
        return own, 0
    raise ConfigError(_unsupported(name, features.reductions[-1]))


def _has_features(features: nn.Module, in_channels: int, height: int, width: int) -> bool:
    """Whether an image of this size gives features of the channels and strides that they are said to have.
    Nothing is computed: the tensors have no storage."""
    tensors = {
        key: tensor.to("meta") for key, tensor in (*features.named_parameters(), *features.named_buffers())
    }
    image = torch.empty(1, in_channels, height, width, device="meta")
    try:
        with torch.no_grad():
            found = torch.func.functional_call(features.eval(), tensors, (image,))
    except REFUSALS:
        return False
    finally:
        features.train()
    said = [
        (channels, height // stride, width // stride)
        for channels, stride in zip(features.channels, features.reductions, strict=True)
    ]
    return [tuple(feature.shape[1:]) for feature in found] == said


def _dilate_firsts(features: nn.Module, name: str, in_channels: int, output_stride: int) -> None:
    """Gives every spatial convolution that lost its stride the dilation of the convolutions after it."""
    with torch.device("meta"):
        strided = _create(name, in_channels, 32)
    changed = 0
    for key, conv in _spatial_convolutions(features):
        lost = strided.get_submodule(key).stride[0] // conv.stride[0]
        if lost > 1:
            _dilate(conv, lost * conv.dilation[0])
            changed += 1
    if changed < (32 // output_stride).bit_length() - 1:
        raise ConfigError(
            f"model.contract_dilation=false is not possible with model.encoder={name}: its strides are not "
            f"in its convolutions; "
            "use model.contract_dilation=true"
        )


def _dilate_averages(features: nn.Module, output_stride: int) -> None:
    """Makes shortcuts with average pooling (ResNet-D) average the same pixels as with their stride; timm's
    average neighbouring pixels once the stride is removed."""
    from timm.layers import AvgPool2dSame

    pools = [name for name, module in features.named_modules() if isinstance(module, AvgPool2dSame)]
    # Counted from the last stage: some networks have no pooling in an earlier one without its stride.
    for back, name in enumerate(reversed(pools)):
        features.set_submodule(name, DilatedAverage(16 // output_stride >> back))


class DilatedAverage(nn.Module):
    """B×D×H×W -> B×D×H×W: the mean of 2×2 pixels that are `rate` apart, without those beyond the border."""

    def __init__(self, rate: int):
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for axis in (2, 3):
            length = x.shape[axis]
            reach = min(self.rate, length)
            # A pixel whose neighbour lies beyond the border is averaged with itself.
            x = (
                x
                + torch.cat(
                    [x.narrow(axis, reach, length - reach), x.narrow(axis, length - reach, reach)], axis
                )
            ) / 2
        return x


def _set_multi_grid(features: nn.Module, name: str, output_stride: int, multi_grid: tuple[int, ...]) -> None:
    units = dict(features.named_children()).get("layer4")
    if units is None:
        raise ConfigError(
            f"model.multi_grid needs the units of a ResNet's last block, which model.encoder={name} does "
            f"not have; use model.multi_grid=null or model.encoder=resnet50"
        )
    if len(units) != len(multi_grid) or min(multi_grid) < 1:
        raise ConfigError(
            f"model.multi_grid is {list(multi_grid)}; allowed: null or {len(units)} integers from 1, one "
            f"for each unit of the last "
            f"block of model.encoder={name}"
        )
    for unit, factor in zip(units, multi_grid, strict=True):
        for _, conv in _spatial_convolutions(unit):
            _dilate(conv, factor * 32 // output_stride)


def _set_norm_eps(features: nn.Module, eps: float) -> None:
    if eps <= 0:
        raise ConfigError(f"model.norm_eps is {eps}; allowed: a number above 0, or null")
    for module in features.modules():
        if isinstance(module, _BatchNorm):
            module.eps = eps


def _spatial_convolutions(module: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    return [
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d) and max(part.kernel_size) > 1
    ]


def _dilate(conv: nn.Conv2d, dilation: int) -> None:
    """Sets the dilation of a convolution and a padding that keeps H×W. Convolutions whose padding is 0 pad
    their input in forward."""
    conv.dilation = (dilation, dilation)
    if any(conv.padding):
        conv.padding = tuple(dilation * (side - 1) // 2 for side in conv.kernel_size)


def check_name(name: str) -> None:
    import timm

    architecture, _, tag = name.partition(".")
    # Outdated names, which timm still builds, have no such entry.
    if not timm.is_model(architecture) or timm.get_pretrained_cfg(architecture) is None:
        known = nearest(architecture, timm.list_models())
        raise ConfigError(
            f"model.encoder={name} does not exist{known}; allowed: names of timm's networks "
            f"(`segtrain list encoders`)"
        )
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*")] if tag else [tag]
    if tag not in tags:
        there = ", ".join(tags) or "none"
        raise ConfigError(
            f"model.encoder={name} does not exist: {architecture} has the weights {there}{nearest(tag, tags)}"
        )


def _unsupported(name: str, output_stride: int) -> str:
    if output_stride == STRIDE:
        reason = "(vision transformers with one resolution, Inception and NASNet cannot)"
    else:
        reason = "(transformers, HRNet, DenseNet and networks with plain pooling cannot)"
    return (
        f"model.encoder={name} cannot hand out its features at output stride {output_stride} {reason}; use a "
        f"ResNet, RegNet, MobileNet, EfficientNet, ConvNeXt or Xception, such as model.encoder=resnet50"
    )
