"""Adam with decoupled weight decay."""

from typing import Annotated

import torch
from torch import nn

from segtrain.optimizer.groups import FACTOR, parameter_groups
from segtrain.options import NOT_NEGATIVE, SHARE


def adamw(
    network: nn.Module,
    lr: Annotated[float, NOT_NEGATIVE] = 1e-3,
    betas: tuple[Annotated[float, SHARE], Annotated[float, SHARE]] = (0.9, 0.999),
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.01,
    encoder_factor: Annotated[float, NOT_NEGATIVE] = 1.0,
    layer_decay: Annotated[float, FACTOR] = 1.0,
    decay_all: bool = False,
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019).

    Options:
        lr: base learning rate, which the schedule scales
        betas: decay rates of the moving averages of the gradient and of its square
        weight_decay: decoupled weight decay, multiplied by the learning rate
        encoder_factor: factor of the encoder's learning rate
        layer_decay: further factor of the encoder's learning rate, once for each stage from its last to its
            first one: 0.8 lets early stages change less (layer-wise decay; Clark et al. 2020, ELECTRA)
        decay_all: apply weight decay to norm layers and biases too
    """
    groups = parameter_groups(network, lr, weight_decay, encoder_factor, decay_all, layer_decay=layer_decay)
    # One fused kernel for all tensors; the plain loop costs several milliseconds a step on small networks.
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
