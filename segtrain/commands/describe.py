"""`segtrain describe`: the layers of a network; and the numbers of each network for the catalogue."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import nn

from segtrain.checkpoint.restore import without_weights
from segtrain.errors import ConfigError
from segtrain.model import MODEL
from segtrain.model.description import Description, described, lines
from segtrain.options import options_of
from segtrain.sample import IGNORE
from segtrain.text import say

CLASSES, SIZE = 21, 512
"""Number of classes and image side for the numbers in `segtrain list models`."""
STRIDES = tuple(2**power for power in range(2, 9))
"""Output strides that are tried on a network to find those it supports."""


def build(config: Mapping, classes: int, channels: int) -> nn.Module:
    """The network on the meta device, without pretrained weights. ConfigError if it has no parameters."""
    runtime = {
        "out_channels": classes,
        "num_classes": classes,
        "in_channels": channels,
        "ignore_index": IGNORE,
    }
    with torch.device("meta"):
        net = MODEL.build(without_weights(dict(config)), **runtime)
    if not any(True for _ in net.parameters()):
        raise ConfigError(
            f"model={config['name']} has no layers with weights to describe; its options: segtrain config "
            f"train model={config['name']}"
        )
    return net.to("meta").eval()


def layers(config: Mapping) -> list[str]:
    """The lines that `segtrain describe` prints for its checked config."""
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ConfigError(f"size is {list(size)}; allowed: pixels from 1")
    net = build(config["model"], config["classes"], config["channels"])
    return lines(described(net, config["channels"], height, width), config["depth"])


# --- for the catalogue


def numbers(name: str) -> dict:
    """Numbers of an entry of MODEL with its default options: parameters with 21 classes, multiply-adds of an
    image of the accepted size nearest to 512x512, that size, encoder, output strides; None where a number
    does not apply."""
    options = options_of(MODEL.factory(name))
    defaults = {key: option.default for key, option in options.items()}
    nothing = {
        "parameters": None,
        "multiply_adds": None,
        "size": None,
        "encoder": None,
        "output_strides": None,
    }
    try:
        net = build({"name": name, **defaults}, CLASSES, 3)
    except ConfigError:
        return nothing  # a network without parameters, which fits itself
    found = _of_nearest_size(net)
    encoder = defaults.get("encoder", type(net.encoder).__name__ if "weights" in options else None)
    return {
        "parameters": found.parameters,
        "multiply_adds": found.multiply_adds,
        "size": found.image[1],
        "encoder": encoder,
        "output_strides": _output_strides(name, defaults, net),
    }


def _of_nearest_size(net: nn.Module) -> Description:
    """The description of the network for square images of the accepted size nearest to SIZE."""
    for away in range(64):
        for side in dict.fromkeys((SIZE - away, SIZE + away)):
            with contextlib.suppress(ConfigError):
                return described(net, 3, side, side)
    raise ConfigError(f"{type(net).__name__} takes no images of about {SIZE}x{SIZE}")


def _output_strides(name: str, defaults: Mapping, net: nn.Module) -> list[int] | None:
    """The output strides that the network supports; None if it has no encoder."""
    if "output_stride" not in defaults:
        return None if net.encoder_stride is None else [net.encoder_stride]
    found = []
    for stride in STRIDES:
        with contextlib.suppress(ConfigError):
            build({"name": name, **defaults, "output_stride": stride}, CLASSES, 3)
            found.append(stride)
    return found


def describe(config: dict, stop) -> list[str]:
    """Prints the layers of a network and returns the lines."""
    lines = layers(config)
    say(*lines)
    return lines
