"""Segmentation by an image classifier that predicts the centre of a small window, slid over the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.encoder.timm_encoder import check_name
from segtrain.model.encoder.weights import load_encoder_weights
from segtrain.model.network import Network
from segtrain.model.parts.fc_to_conv import fc_to_conv
from segtrain.model.parts.limits import CHANNELS
from segtrain.model.parts.norm import freeze_batch_norm
from segtrain.options import FROM_0, IS_PATH, Length, between, key, with_options
from segtrain.sample import Output, Window

WINDOW_BYTES = 1 << 28
"""Memory of the windows that go through the network at a time; their features take several times as much."""


@dataclass(frozen=True)
class Options:
    """Options of patch-wise classification."""

    encoder: str = key(
        "tf_efficientnet_lite0",
        "name of a convolutional network of timm (`segtrain list encoders`; VGG and DenseNet too)",
    )
    weights: Annotated[str, IS_PATH] = key(
        "imagenet",
        "initial weights of the encoder: imagenet, none, or the path of a .safetensors or .pth file",
    )
    freeze: Literal["trunk", "none"] = key(
        "trunk", "trunk: the encoder is not trained, nor its batch normalisation; none: all of it is trained"
    )
    tuned_layers: Annotated[int, FROM_0] = key(
        0,
        "how many of the last convolutions and fully connected layers of a frozen encoder are trained",
    )
    hidden: Annotated[tuple[Annotated[int, CHANNELS], ...], Length(0, 8)] = key(
        (), "channels of new fully connected layers between the encoder and the logits"
    )
    patch: Annotated[int, between(1, 2048)] = key(
        65, "side of the window in pixels that one prediction sees; the border of the image is reflected"
    )
    stride: Annotated[int, between(1, 512)] = key(
        8, "distance in pixels between the points of an image that are predicted"
    )
    batch: Annotated[int, between(1, 65536)] = key(
        256, "most windows that go through the network at a time; of large ones as many as fit into 256 MB"
    )
    dense: bool = key(
        False,
        "predict a whole image in one pass, with the fully connected layers as convolutions; the points then "
        "lie at the stride of the encoder's last features. The weights are the same; the logits too if the "
        "encoder does not pad",
    )


@with_options(Options)
def patchwise(options: Options, out_channels: int, in_channels: int = 3) -> Network:
    """Patch-wise classification: an image classifier, with new last layers, on a window around each point of
    a grid.

    The way before fully convolutional networks (Ciresan et al. 2012, with windows of 65 px). It is trained on
    windows, one a sample: `augmentation=patch loader.batch_size=128 loader.cache=memory`. Of larger crops
    every point of the grid is predicted.
    """
    trunk = _trunk(options.encoder, in_channels)
    channels, feature_size = _feature_shape(trunk, options.encoder, in_channels, options.patch)
    net = Patchwise(options, trunk, feature_size, _head(channels, options.hidden, out_channels))
    if options.freeze == "trunk":
        _freeze(trunk, options.tuned_layers)
    net.normalisation, net.weights_report = load_encoder_weights(
        trunk, options.encoder, options.weights, in_channels
    )
    return net


class Patchwise(Network):
    """B×K×H×W -> Output with the logits of windows of `patch` px whose centres lie at (i + ½)·stride, for any
    H and W.

    In training, an image of patch×patch is one window, and only its centre pixel (number patch // 2) is
    predicted. feature_size: height and width of the encoder's features of one window.
    """

    def __init__(
        self, options: Options, encoder: nn.Module, feature_size: tuple[int, int], head: nn.Sequential
    ):
        super().__init__()
        self.encoder, self.head, self.feature_size = encoder, head, feature_size
        self.patch, self.stride = options.patch, options.stride
        self.batch, self.dense = options.batch, options.dense
        self.head_keys = tuple(f"head.{len(head) - 1}.{name}" for name in ("weight", "bias"))

    def forward(self, x: torch.Tensor) -> Output:
        height, width = x.shape[-2:]
        if self.training and (height, width) == (self.patch, self.patch):
            return Output(
                self.classify(x)[..., None, None],
                (1, 1),
                window=Window(self.patch // 2, self.patch // 2, 1, 1),
            )
        if self.dense and not self.training:
            stride = self.encoder.feature_info[-1]["reduction"]
            logits = self._in_one_pass(
                bordered(x, self.patch, stride), -(-height // stride), -(-width // stride)
            )
        else:
            stride = self.stride
            logits = self._on_grid(bordered(x, self.patch, stride))
        return Output(_within(logits, stride, height, width), (height, width))

    def classify(self, windows: torch.Tensor) -> torch.Tensor:
        """N×K×patch×patch -> N×C logits."""
        return self.head(self.encoder(windows))

    def _on_grid(self, x: torch.Tensor) -> torch.Tensor:
        """B×K×H×W bordered images -> B×C×h×w logits of a window every `stride` pixels."""
        windows = (
            x.unfold(2, self.patch, self.stride).unfold(3, self.patch, self.stride).permute(0, 2, 3, 1, 4, 5)
        )
        images, rows, columns = windows.shape[:3]  # of B×rows×columns×K×patch×patch
        fitting = WINDOW_BYTES // (x.shape[1] * self.patch**2 * x.element_size())
        places = torch.arange(images * rows * columns, device=x.device).split(
            max(1, min(self.batch, fitting))
        )
        # Windows are copied out of the view batch by batch: all of them take (patch / stride)² times the
        # memory of the images.
        found = [
            self.classify(windows[n // (rows * columns), n // columns % rows, n % columns]) for n in places
        ]
        return torch.cat(found).view(images, rows, columns, -1).permute(0, 3, 1, 2)  # B×C×rows×columns

    def _in_one_pass(self, x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """B×K×H×W bordered images -> B×C×rows×columns logits."""
        logits = fc_to_conv(self.head, self.feature_size)(self.encoder(x))
        if logits.shape[-2:] != (rows, columns):
            raise ConfigError(
                f"model.dense=true is not possible with windows of {self.patch} px: on a larger image the "
                f"encoder's features are not those "
                "of more such windows (VGG needs model.patch=224 or more); use model.dense=false"
            )
        return logits


def bordered(x: torch.Tensor, patch: int, stride: int) -> torch.Tensor:
    """The images with reflected borders (or cropped): B×K×H×W -> B×K×H'×W'. The window of `patch` pixels that
    starts at i·stride has its centre at (i + ½)·stride of the image, rounded to a pixel; there are
    ceil(H / stride)×ceil(W / stride) windows."""
    for axis in (2, 3):
        length = x.shape[axis]
        total = (-(-length // stride) - 1) * stride + patch
        # Positions beyond the border are reflected, as often as needed.
        period = max(2 * (length - 1), 1)
        place = (torch.arange(total, device=x.device) - (patch // 2 - stride // 2)).abs() % period
        x = x.index_select(axis, torch.minimum(place, period - place))
    return x


def _within(logits: torch.Tensor, stride: int, height: int, width: int) -> torch.Tensor:
    """The logits as they are if `stride` divides height and width; else upsampled and cropped to the image's
    size."""
    if height % stride == 0 and width % stride == 0:
        return logits
    return F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)[
        ..., :height, :width
    ]


def _head(channels: int, hidden: tuple[int, ...], out_channels: int) -> nn.Sequential:
    """Pooling and fully connected layers; initially all classes are almost equally likely."""
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(channels, width), nn.ReLU(inplace=True)]
        channels = width
    last = nn.Linear(channels, out_channels)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def _trunk(name: str, in_channels: int) -> nn.Module:
    """timm's network up to its last features: without pooling and classifier, but with the fully connected
    layers of a VGG."""
    import timm

    check_name(name)
    return timm.create_model(name, pretrained=False, num_classes=0, global_pool="", in_chans=in_channels)


def _feature_shape(trunk: nn.Module, name: str, in_channels: int, patch: int) -> tuple[int, tuple[int, int]]:
    """Channels, and (height, width), of the trunk's features of one window. Nothing is computed."""
    tensors = {key: tensor.to("meta") for key, tensor in (*trunk.named_parameters(), *trunk.named_buffers())}
    window = torch.empty(1, in_channels, patch, patch, device="meta")
    try:
        features = torch.func.functional_call(trunk.eval(), tensors, (window,))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"model.encoder={name} takes no windows of model.patch={patch} px ({reason}); use a "
            f"larger model.patch, or model.encoder=resnet18"
        ) from error
    finally:
        trunk.train()
    if features.ndim != 4 or not getattr(trunk, "feature_info", None):
        raise ConfigError(
            f"model.encoder={name} is not convolutional to its end; use model.encoder=resnet18 or "
            f"another one with feature maps"
        )
    return features.shape[1], tuple(features.shape[2:])


def _freeze(trunk: nn.Module, tuned_layers: int) -> None:
    """Freezes all of the trunk but its last `tuned_layers` convolutions and fully connected layers; batch
    normalisation is frozen everywhere."""
    layers = [module for module in trunk.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    if not 0 <= tuned_layers <= len(layers):
        raise ConfigError(
            f"model.tuned_layers is {tuned_layers}; allowed: 0 to {len(layers)}, the layers of the encoder"
        )
    freeze_batch_norm(trunk.requires_grad_(False))
    for layer in layers[len(layers) - tuned_layers :]:
        layer.requires_grad_(True)
