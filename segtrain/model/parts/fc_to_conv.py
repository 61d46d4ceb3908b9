"""Fully connected layers as convolutions (Long et al. 2015, "Fully convolutional networks for semantic
segmentation", sec. 3.1)."""

from __future__ import annotations

from torch import nn

from segtrain.errors import ConfigError


def fc_to_conv(classifier: nn.Sequential, size: tuple[int, int]) -> nn.Sequential:
    """The head of an image classifier with its fully connected layers as convolutions: B×D×H×W features of
    any size -> B×C×h×w logits.

    The logits at (i, j) are those of the window of the image whose features begin at (i, j); exactly so if
    the encoder before the head does not pad. On features of `size`, h and w are 1.

    classifier: B×D×h×w -> B×C. It may hold pooling to one value (or to `size`), flattening, fully connected
    layers and modules that act on each value alone. It is not changed; the convolutions share its weights.
    size: height and width of the features that the classifier was trained on.
    """
    window, layers = tuple(size), []
    for layer in classifier:
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            pooled = (
                (layer.output_size,) * 2 if isinstance(layer.output_size, int) else tuple(layer.output_size)
            )
            if pooled not in ((1, 1), window):
                raise ConfigError(
                    f"pooling of {window} to {pooled} values depends on the size of the image and is no "
                    f"convolution"
                )
            if pooled != window:
                layers.append(nn.AvgPool2d(window, stride=1))
                window = (1, 1)
        elif isinstance(layer, nn.Linear):
            layers.append(_convolution(layer, window))
            window = (1, 1)
        elif not isinstance(layer, nn.Flatten):
            layers.append(layer)
    return nn.Sequential(*layers)


def _convolution(linear: nn.Linear, window: tuple[int, int]) -> nn.Conv2d:
    """The layer on flattened D×h×w features as a convolution with an h×w kernel."""
    channels = linear.in_features // (window[0] * window[1])
    # On meta, because new weights for VGG's first layer alone would take a second to draw.
    conv = nn.Conv2d(channels, linear.out_features, window, bias=linear.bias is not None, device="meta")
    conv.weight = nn.Parameter(
        linear.weight.detach().view(linear.out_features, channels, *window), requires_grad=False
    )
    if linear.bias is not None:
        conv.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return conv.train(linear.training)
