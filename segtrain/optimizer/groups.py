"""Parameter groups: the learning rate and weight decay of each parameter."""

from __future__ import annotations

from torch import nn

NAMES = {
    (False, False): "rest",
    (False, True): "bias",
    (True, False): "encoder",
    (True, True): "encoder_bias",
}
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(
    network: nn.Module,
    lr: float,
    weight_decay: float,
    encoder_factor: float,
    decay_all: bool,
    bias_factor: float = 1.0,
) -> list[dict]:
    """Parameter groups for a torch optimizer (`params`, `lr`, `weight_decay`, `name`). Every trainable
    parameter is in exactly one group.

    Learning rates are lr × encoder_factor for the parameters of `network.encoder`, and × bias_factor for
    biases except those of norm layers. Norm layers and biases have no weight decay unless `decay_all`. Groups
    with the same name (encoder, encoder_bias, rest, bias) have the same learning rate.
    """
    encoder = dict(network.named_children()).get("encoder")
    in_encoder = set() if encoder is None else {id(p) for p in encoder.parameters()}
    norms, biases = _norms_and_biases(network)
    no_decay = set() if decay_all else norms | biases
    scaled_biases = biases if bias_factor != 1 else set()
    groups: dict[tuple[bool, bool, bool], list] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            groups.setdefault(
                (id(parameter) in in_encoder, id(parameter) in scaled_biases, id(parameter) not in no_decay),
                [],
            ).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * (encoder_factor if encoder_part else 1.0) * (bias_factor if bias else 1.0),
            "weight_decay": weight_decay if decays else 0.0,
            "name": NAMES[encoder_part, bias],
        }
        for (encoder_part, bias, decays), parameters in groups.items()
    ]


def _norms_and_biases(network: nn.Module) -> tuple[set[int], set[int]]:
    """Ids of the parameters of norm layers, and of all other biases."""
    norms = {
        id(p)
        for module in network.modules()
        if isinstance(module, NORMS)
        for p in module.parameters(recurse=False)
    }
    return norms, {id(p) for name, p in network.named_parameters() if name.endswith("bias")} - norms
