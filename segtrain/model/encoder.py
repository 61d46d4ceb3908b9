"""Encoders: image classification networks that hand out the features of every stage, at a chosen output stride.

timm is imported inside the functions: it takes seconds, and neither `segtrain list` nor the small encoder needs it.
"""

from __future__ import annotations

import torch
from torch import nn

from segtrain.errors import ConfigError, nearest
from segtrain.model.norm import freeze_batch_norm, is_frozen

OUTPUT_STRIDES = (8, 16, 32)


def encoder_of(name: str, in_channels: int, output_stride: int) -> nn.Module:
    """timm's network `name` without its classifier, randomly initialised: B×K×H×W -> a list of features, finest first.

    Its attributes `channels` and `reductions` say, for every feature, how many channels it has and by what its sides are divided.
    A stage whose stride is removed for the sake of the output stride dilates its convolutions instead, its first one still
    with the dilation of the stage before (the contracted rule of DeepLab's code), so that the network computes the same
    function of its input, on a finer grid. ConfigError for an encoder or an output stride that cannot be had.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise ConfigError(f"model.output_stride is {output_stride}; allowed: 8, 16, 32")
    if not 1 <= in_channels <= 10:
        raise ConfigError(f"the images have {in_channels} channels; an encoder takes 1 to 10")
    _check_name(name)
    try:
        features = _create(name, in_channels, output_stride)
    except (TypeError, AssertionError, NotImplementedError, RuntimeError, ValueError, AttributeError) as error:
        raise ConfigError(_unsupported(name, output_stride)) from error
    info = features.feature_info
    features.channels, features.reductions = tuple(info.channels()), tuple(info.reduction())
    if features.reductions[-1] != output_stride or len(features.reductions) < 3:
        raise ConfigError(_unsupported(name, output_stride))
    return features


def _create(name: str, in_channels: int, output_stride: int) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, features_only=True, output_stride=output_stride, in_chans=in_channels)


def _check_name(name: str) -> None:
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = nearest(architecture, timm.list_models())
        raise ConfigError(f"model.encoder={name} does not exist{known}; allowed: timm's networks that take an output stride")
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*")] if tag else [tag]
    if tag not in tags:
        there = ", ".join(tags) or "none"
        raise ConfigError(f"model.encoder={name} does not exist: {architecture} has the weights {there}{nearest(tag, tags)}")


def _unsupported(name: str, output_stride: int) -> str:
    return (
        f"model.encoder={name} cannot hand out its features at output stride {output_stride} (transformers, HRNet, DenseNet and "
        "networks with plain pooling cannot); use a ResNet, RegNet, MobileNet, EfficientNet, ConvNeXt or Xception, such as resnet50"
    )


def at_output_stride(net: nn.Module, output_stride: int) -> nn.Module:
    """A twin of `net` that computes at another output stride with the same tensors: what trains one changes the other.

    Rates that depend on the output stride follow. The twin has the modes and the frozen parts of `net`.
    """
    if not hasattr(net, "recipe"):
        raise ConfigError(f"model.output_stride is not an option of {type(net).__name__}: its features come at the strides of its paper")
    with torch.device("meta"):
        twin = type(net)(net.recipe.at(output_stride))
    _share_tensors(net, twin)
    for name, module in net.named_modules():
        copy = twin.get_submodule(name)
        copy.training = module.training
        if is_frozen(module):
            freeze_batch_norm(copy)
    for name in vars(net).keys() & {"normalisation", "weights_report", "pretrained"}:
        setattr(twin, name, getattr(net, name))
    return twin


def _share_tensors(net: nn.Module, twin: nn.Module) -> None:
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
