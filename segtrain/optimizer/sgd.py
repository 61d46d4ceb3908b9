"""Stochastic gradient descent."""

from typing import Annotated

import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.optimizer.groups import FACTOR, parameter_groups
from segtrain.options import NOT_NEGATIVE, SHARE


def sgd(
    network: nn.Module,
    lr: Annotated[float, NOT_NEGATIVE] = 0.01,
    momentum: Annotated[float, SHARE] = 0.9,
    nesterov: bool = False,
    weight_decay: Annotated[float, NOT_NEGATIVE] = 1e-4,
    encoder_factor: Annotated[float, NOT_NEGATIVE] = 1.0,
    layer_decay: Annotated[float, FACTOR] = 1.0,
    decay_all: bool = False,
    bias_factor: Annotated[float, NOT_NEGATIVE] = 1.0,
) -> torch.optim.Optimizer:
    """SGD with momentum.

    Options:
        lr: base learning rate, which the schedule scales
        momentum: momentum factor; 0: plain SGD
        nesterov: use Nesterov momentum
        weight_decay: L2 penalty, added to the gradient
        encoder_factor: factor of the encoder's learning rate
        layer_decay: further factor of the encoder's learning rate, once for each stage from its last to its
            first one: 0.8 lets early stages change less (layer-wise decay; Clark et al. 2020, ELECTRA)
        decay_all: apply weight decay to norm layers and biases too
        bias_factor: factor of the learning rate of biases, except those of norm layers; networks made with
            Caffe have 2
    """
    if nesterov and momentum == 0:
        raise ConfigError(
            "optimizer.nesterov is true and optimizer.momentum is 0; Nesterov needs a momentum above 0"
        )
    groups = parameter_groups(network, lr, weight_decay, encoder_factor, decay_all, bias_factor, layer_decay)
    # One fused kernel for all tensors.
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
