"""What a network is made of: layers, shapes, parameters, multiply-adds. Nothing is computed: its tensors have
no storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.sample import Output
from segtrain.text import amount, table


@dataclass(frozen=True)
class Layer:
    """A part of a network. depth: 1 for the network's own attributes. shape: of the last tensor it gave,
    without the batch, () if it was not called. parameters and multiply_adds: with those of its parts."""

    name: str
    kind: str
    depth: int
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Description:
    """A network's layers in order of definition, and the whole of it on an image of K×H×W."""

    layers: list[Layer]
    parameters: int
    multiply_adds: int
    image: tuple[int, int, int]
    output: Output


@torch.no_grad()
def described(net: nn.Module, channels: int, height: int, width: int) -> Description:
    """Runs the shapes of one image through a network without storage, in evaluation mode. ConfigError for a
    size that it does not take."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    costs: dict[nn.Module, int] = {}

    def before(module, _inputs):
        costs[module] = costs.get(module, 0) - counter.get_total_flops()

    def after(module, _inputs, output):
        costs[module] += counter.get_total_flops()
        shapes[module] = _last_shape(output)

    hooks = [hook for module in net.modules() for hook in _hooks(module, before, after)]
    try:
        with counter:
            output = net(torch.empty(1, channels, height, width, device="meta"))
    except RuntimeError as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"size={height}x{width} is not possible with this network: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
    layers = [
        Layer(
            name,
            type(module).__name__,
            name.count(".") + 1,
            shapes.get(module, ()),
            _parameters(module),
            _cost(module, costs) // 2,
        )
        for name, module in net.named_modules()
        if name
    ]
    return Description(layers, _parameters(net), costs[net] // 2, (channels, height, width), output)


def _hooks(module: nn.Module, before, after):
    return module.register_forward_pre_hook(before), module.register_forward_hook(after)


def _last_shape(output) -> tuple[int, ...]:
    while isinstance(output, (list, tuple)) and output:
        output = output[-1]
    return tuple(output.shape[1:]) if isinstance(output, Tensor) else ()


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _cost(module: nn.Module, costs: Mapping[nn.Module, int]) -> int:
    """Of a container that nobody calls (a ModuleList) that of its parts."""
    return costs[module] if module in costs else sum(_cost(part, costs) for part in module.children())


# --- in words


def lines(description: Description, depth: int) -> list[str]:
    """A table of the layers down to `depth`, and the totals."""
    rows = [
        (
            "  " * (layer.depth - 1) + layer.name.rpartition(".")[2],
            layer.kind,
            _sides(layer.shape),
            f"{layer.parameters:,}",
            amount(layer.multiply_adds),
        )
        for layer in description.layers
        if layer.depth <= depth
    ]
    output = _sides(description.output.logits.shape[1:])
    total = ("total", "", output, f"{description.parameters:,}", amount(description.multiply_adds))
    head = ("layer", "type", "output", "parameters", "multiply-adds")
    return [*table(head, [*rows, total], left=(0, 1, 2)), "", *_about_output(description)]


def _about_output(description: Description) -> list[str]:
    output, (_, height, width) = description.output, description.image
    found = output.logits.shape[-2:]
    answered = output.window[2:] if output.window else (height, width)
    strides = {round(side / logits) for side, logits in zip(answered, found, strict=True)}
    # Logits are one for each begun stride: 513 pixels have 129 at stride 4.
    whole = len(strides) == 1 and all(
        -(-side // min(strides)) == logits for side, logits in zip(answered, found, strict=True)
    )
    # A network that interpolates by itself has logits for every pixel, whatever its stride.
    at_stride = f" at stride {min(strides)}" if whole and strides != {1} else ""
    text = (
        f"an image of {_sides(description.image)} gives logits of "
        f"{_sides(output.logits.shape[1:])}{at_stride}"
    )
    if output.window:
        return [f"{text}, for the inner {_sides(answered)} px"]
    return [text + ("" if tuple(found) == tuple(output.size) else f", interpolated to {_sides(output.size)}")]


def _sides(shape) -> str:
    return "x".join(map(str, shape))
