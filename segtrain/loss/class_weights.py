"""Class weights, by a rule or from a list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from segtrain.errors import ConfigError

Weighting = Literal["none", "inverse", "median", "enet"]


def class_weights(rule: str, power: float, pixels: Tensor, in_images: Tensor) -> Tensor:
    """float32[C]: class weights by a rule, raised to `power`; 1 for classes that are absent from the training
    split.

    pixels: int[C], labelled pixels of each class. in_images: int[C], labelled pixels of all images that
    contain the class.

    inverse: mean share of a class / share. median: median share / share, with shares over the images that
    contain the class (Eigen & Fergus 2015; SegNet). enet: 1 / ln(1.02 + share) (Paszke et al. 2016).
    """
    pixels, in_images = pixels.double(), in_images.double()
    present = pixels > 0
    share = (pixels / pixels.sum().clamp_min(1))[present]
    share_where_present = (pixels / in_images.clamp_min(1))[present]
    weights = torch.ones_like(pixels)
    if rule == "inverse":
        weights[present] = share.mean() / share
    elif rule == "median":
        weights[present] = share_where_present.quantile(0.5) / share_where_present
    elif rule == "enet":
        weights[present] = 1 / torch.log(1.02 + share)
    return (weights**power).float()


def weights_of(
    rule: Weighting | list[float], power: float, num_classes: int, class_frequency: Callable
) -> Tensor | None:
    """float32[C]: class weights by a rule or from a list, raised to `power`; None without class weights."""
    if not isinstance(rule, str) and len(rule) != num_classes:
        raise ConfigError(f"loss.class_weights holds {len(rule)} numbers; the data has {num_classes} classes")
    if rule == "none":
        return None
    if isinstance(rule, str):
        frequency = class_frequency()
        weights = class_weights(
            rule, power, torch.as_tensor(frequency.pixels), torch.as_tensor(frequency.in_images)
        )
    else:
        weights = torch.tensor(rule, dtype=torch.float32) ** power
    wrong = (
        "infinite for some class"
        if not weights.isfinite().all()
        else None
        if weights.any()
        else "0 for all classes"
    )
    if wrong:
        raise ConfigError(
            f"loss.class_weights={rule} to the power of loss.weight_power={power} is {wrong}; use another "
            f"power or other weights"
        )
    return weights
