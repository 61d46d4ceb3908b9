"""A task of one measured value a pixel, with its own loss and metric."""

import numpy as np
import torch
from torch import nn

from segtrain.sample import Number, Target
from segtrain.task.task import Task


def grey(values: np.ndarray, facts) -> np.ndarray:
    return (255 * np.nan_to_num(values).clip(0, 1))[..., None].repeat(3, 2).astype(np.uint8)


def depth() -> Task:
    """One number a pixel."""
    return Task(
        name="depth",
        out_channels=lambda facts: 1,
        activate=lambda logits, images: logits.sigmoid(),
        decide=lambda values: values[:, 0],
        metrics={"mae": {}},
        score="mae",
        lower_is_better=True,
        picture=grey,
        target=Target(classes=False, interpolation="linear"),
        folder="depth",
    )


class Absolute(nn.Module):
    """|sigmoid(logit) - target|, summed over the known pixels."""

    def forward(self, output, target):
        known = torch.isfinite(target)
        error = (output.upsampled()[:, 0].sigmoid() - torch.where(known, target, 0)).abs()
        return (error * known).sum(), known.sum().float()


def absolute() -> Absolute:
    """Mean absolute error."""
    return Absolute()


class AbsoluteError:
    needs = frozenset({"decisions"})

    def counts(self, target, *, decisions):
        known = torch.isfinite(target)
        error = torch.where(known, (decisions - target).abs(), 0).double()
        axes = tuple(range(1, target.ndim))
        return torch.stack([error.sum(axes), known.sum(axes).double()], 1)  # B×2

    def scores(self, counts):
        total, known = counts.tolist()
        return {"mae": Number("mean absolute error", total / known if known else None)}


def mae() -> AbsoluteError:
    """Mean absolute error over the known pixels."""
    return AbsoluteError()
