"""Stochastic gradient descent."""

from typing import Annotated

import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.optimizer.groups import parameter_groups
from segtrain.options import NOT_NEGATIVE, SHARE


def sgd(
    network: nn.Module,
    lr: Annotated[float, NOT_NEGATIVE] = 0.01,
    momentum: Annotated[float, SHARE] = 0.9,
    nesterov: bool = False,
    weight_decay: Annotated[float, NOT_NEGATIVE] = 1e-4,
    encoder_factor: Annotated[float, NOT_NEGATIVE] = 1.0,
    decay_all: bool = False,
    bias_factor: Annotated[float, NOT_NEGATIVE] = 1.0,
) -> torch.optim.Optimizer:
    """SGD with momentum.

    Options:
        lr: learning rate of everything but the encoder, before the schedule
        momentum: share of the last update that is added to the next
        nesterov: use Nesterov momentum
        weight_decay: L2 penalty, added to the gradient
        encoder_factor: the encoder's learning rate is lr times this
        decay_all: apply weight decay to norm layers and biases too
        bias_factor: the learning rate of biases, but not of those of norm layers, is lr times this; networks
            made with Caffe have 2
    """
    if nesterov and momentum == 0:
        raise ConfigError(
            "optimizer.nesterov is true and optimizer.momentum 0; Nesterov momentum needs one above 0"
        )
    groups = parameter_groups(network, lr, weight_decay, encoder_factor, decay_all, bias_factor)
    # One fused kernel for all tensors.
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
