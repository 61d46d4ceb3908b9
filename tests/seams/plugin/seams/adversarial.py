"""A generator and a discriminator, two optimizers, one step."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from seams.restoration import restoration, restore
from segtrain.train.step import micro_batches, update


class Discriminator(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4, 2, 1))


def adversarial():
    """Restoration that a discriminator judges as well."""
    return replace(
        restoration(),
        name="adversarial",
        networks=lambda facts: {"discriminator": Discriminator()},
        optimizers={"discriminator": {"name": "adamw", "lr": 0.002}},
        step=step,
    )


def step(state, batch, learning):
    """The discriminator's update, then the generator's; each gradient is scaled, unscaled, clipped and stepped once."""
    judge = state.networks["discriminator"]
    total = weight = 0
    for images, targets in micro_batches(batch, learning.settings, learning.device):
        made = restore(state.model(learning.normalise(images)).upsampled(), images)
        real = torch.nan_to_num(targets)
        loss = bce(judge(real), 1) + bce(judge(made.detach()), 0)
        state.scaler.scale(loss).backward()
        update(state, "discriminator", learning)
        error = (made - real).square()
        state.scaler.scale(error.mean() + 0.01 * bce(judge(made), 1)).backward()
        update(state, "network", learning)
        state.optimizers["discriminator"].zero_grad(set_to_none=True)  # the generator's loss went through it
        state.scaler.update()
        total, weight = total + error.detach().sum(), weight + torch.tensor(float(error.numel()))
    return total, weight


def bce(judged, truth):
    return F.binary_cross_entropy_with_logits(judged, torch.full_like(judged, truth))
