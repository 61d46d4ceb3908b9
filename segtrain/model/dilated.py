"""Yu & Koltun 2016, "Multi-scale context aggregation by dilated convolutions": VGG16 made dense, and a
context module."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.encoder.vgg import VGG16, DropoutVGGOptions, load_vgg16_weights
from segtrain.model.network import Network
from segtrain.model.parts.limits import RATE
from segtrain.options import Length, between, key, with_options
from segtrain.sample import Output

STRIDE = 8
MARGIN = 186
"""Pixels on each side that the front end consumes without padding: an input of H + 372 pixels gives H / 8
rows of logits (900 -> 66)."""
LARGE_WIDTHS = (2, 2, 4, 8, 16, 32, 32)
"""Channels of the large context module's dilated layers, as multiples of the classes (the paper's table
1)."""


@dataclass(frozen=True)
class Options(DropoutVGGOptions):
    """Options of dilated convolutions."""

    context: Literal["none", "basic", "large"] = key(
        "basic",
        "context module after the front end. none: the front end alone, from whose run one with a module can "
        "start (init=RUN); basic: layers of as many channels as classes; large: 2, 2, 4, 8, 16, 32, 32 times "
        "as many",
    )
    context_dilations: Annotated[tuple[Annotated[int, RATE], ...], Length(1, 32)] = key(
        (1, 1, 2, 4, 8, 16, 1),
        "dilations of the context module's 3x3 convolutions, which a 1x1 one follows; "
        "1, 1, 2, 4, 8, 16, 32, 64, 1 are the paper's for Cityscapes",
    )
    context_noise: Annotated[float, between(0, 1)] = key(
        0.01, "standard deviation of the noise on the identity that the context module is initialised as"
    )

    def __post_init__(self):
        if self.context == "large" and len(self.context_dilations) != len(LARGE_WIDTHS):
            raise ConfigError(
                f"model.context_dilations has {len(self.context_dilations)} entries; model.context=large has "
                f"{len(LARGE_WIDTHS)} dilated layers: give as many, or use model.context=basic"
            )


@with_options(Options)
def dilated(options: Options, out_channels: int, in_channels: int = 3) -> Network:
    """Dilated convolutions: VGG16 without its last two poolings, and a context module of growing dilations on
    its logits.

    Yu & Koltun 2016. The logits come at stride 8. No convolution of VGG16 is padded; the image is mirrored at
    its edges by 186 pixels. With 21 classes: front end 134 346 581 parameters, basic context module 28 392
    (19 classes and dilations 32, 64 in addition: 29 792).
    """
    net = Dilated(options, out_channels, in_channels)
    net.normalisation, net.weights_report = load_vgg16_weights(
        net.encoder, options.weights, options.width, in_channels
    )
    return net


class Dilated(Network):
    """B×K×H×W -> Output, for any H and W, with B×C×H/8×W/8 logits, or at the image's size if 8 does not
    divide both."""

    head_keys = ("final.weight", "final.bias")

    def __init__(self, options: Options, out_channels: int, in_channels: int):
        super().__init__()
        self.encoder = VGG16(in_channels, options.width, padding=0, poolings=3, dropout=options.dropout)
        self.final = nn.Conv2d(self.encoder.channels[-1], out_channels, 1)
        nn.init.normal_(self.final.weight, std=0.001)
        nn.init.zeros_(self.final.bias)
        self.context = (
            nn.Identity()
            if options.context == "none"
            else ContextModule(
                out_channels, options.context, options.context_dilations, options.context_noise
            )
        )

    @property
    def mixing_keys(self) -> tuple[str, ...]:
        """Tensors of the context module, each of which depends on all classes."""
        return tuple(f"context.{name}" for name in self.context.state_dict())

    @property
    def bias_keys(self) -> tuple[str, ...]:
        # What is negative in front of the context module does not pass its ReLU.
        return ("context.last.bias",) if isinstance(self.context, ContextModule) else ("final.bias",)

    def forward(self, x: torch.Tensor) -> Output:
        height, width = x.shape[-2:]
        rows = reflected(height, MARGIN, MARGIN + -height % STRIDE, x.device)
        columns = reflected(width, MARGIN, MARGIN + -width % STRIDE, x.device)
        scores = self.final(self.encoder(x[:, :, rows][..., columns])[-1])
        return Output(_cropped(self.context(scores), height, width), (height, width))


def reflected(length: int, before: int, after: int, device=None) -> torch.Tensor:
    """Indices into a row of `length` pixels that pad it by `before` and `after` pixels, reflected at its
    ends.

    As `torch.nn.functional.pad(mode="reflect")`, but a short row is reflected as often as needed.
    """
    places = torch.arange(-before, length + after, device=device)
    period = max(1, 2 * (length - 1))
    places = places.remainder(period)
    return torch.minimum(places, period - places) if length > 1 else places


def _cropped(logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The logits of the image without its padding: at stride 8 if 8 divides its height and width, else at the
    image's size."""
    if height % STRIDE == 0 and width % STRIDE == 0:
        return logits
    return F.interpolate(logits, scale_factor=STRIDE, mode="bilinear", align_corners=False)[
        ..., :height, :width
    ]


class ContextModule(nn.Module):
    """B×C×h×w logits -> B×C×h×w: 3×3 convolutions of growing dilation with ReLU after each, then a 1×1
    convolution.

    It is initialised as the identity on non-negative logits, plus noise N(0, noise²) on the weights (the
    paper's eq. 4 and 5).
    """

    def __init__(
        self, classes: int, kind: Literal["basic", "large"], dilations: tuple[int, ...], noise: float
    ):
        super().__init__()
        factors = LARGE_WIDTHS if kind == "large" else (1,) * len(dilations)
        channels = (classes, *(factor * classes for factor in factors))
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation)
            for (before, after), dilation in zip(pairwise(channels), dilations, strict=True)
        )
        self.last = nn.Conv2d(channels[-1], classes, 1)
        for conv in (*self.layers, self.last):
            _start_as_identity(conv, classes, noise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.layers:
            x = F.relu(conv(x))
        return self.last(x)


@torch.no_grad()
def _start_as_identity(conv: nn.Conv2d, classes: int, noise: float) -> None:
    """Every class has an equal share of the input channels and of the output channels; each output channel of
    a class is the same part of the sum over its input channels."""
    after, before = conv.weight.shape[:2]
    middle = conv.kernel_size[0] // 2
    of_output, of_input = (torch.arange(count) * classes // count for count in (after, before))
    nn.init.normal_(conv.weight, std=noise)
    conv.weight[..., middle, middle] += (of_output[:, None] == of_input) * (classes / after)
    nn.init.zeros_(conv.bias)
