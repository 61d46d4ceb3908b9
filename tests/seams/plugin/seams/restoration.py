"""Three channels a pixel, and a network that answers with what is to be added to the image."""

import math

import numpy as np
import torch
from torch import nn

from segtrain.sample import Number, Target
from segtrain.task.task import Task


def restore(residual: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """B×3×H×W in 0..1."""
    return images.float() / 255 + residual


def restoration() -> Task:
    """The image without its noise."""
    return Task(
        name="restoration",
        out_channels=lambda facts: 3,
        activate=restore,
        decide=lambda values: (255 * values).round().clamp(0, 255).to(torch.uint8),
        metrics={"psnr": {}},
        score="psnr",
        picture=as_picture,
        target=Target(classes=False, interpolation="linear"),
        folder="restored",
    )


def as_picture(values: np.ndarray, facts) -> np.ndarray:
    """H×W×3 uint8 of a prediction (uint8) or of a target (0..1)."""
    return values if values.dtype == np.uint8 else (255 * np.nan_to_num(values)).clip(0, 255).astype(np.uint8)


class Restored(nn.Module):
    def forward(self, output, target):
        known = torch.isfinite(target)
        error = restore(output.upsampled(), output.images) - torch.where(known, target, 0)
        return (error.square() * known).sum(), known.sum().float()


def restored() -> Restored:
    """Mean squared error of the image plus the residual."""
    return Restored()


class SignalToNoise:
    needs = frozenset({"decisions"})

    def counts(self, target, *, decisions):
        known = torch.isfinite(target)
        error = torch.where(known, decisions.float() / 255 - target, 0).double().square()
        return torch.stack([error.sum((1, 2, 3)), known.sum((1, 2, 3)).double()], 1)  # B×2

    def scores(self, counts):
        squares, known = counts.tolist()
        return {"psnr": Number("PSNR in dB", 10 * math.log10(known / squares) if squares else None)}


def psnr() -> SignalToNoise:
    """Peak signal-to-noise ratio of the whole set."""
    return SignalToNoise()
