"""Parameter groups: the learning rate and weight decay of each parameter."""

from __future__ import annotations

from torch import nn

from segtrain.options import Limits

FACTOR = Limits("above 0 and at most 1", lambda value: 0 < value <= 1)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(
    network: nn.Module,
    lr: float,
    weight_decay: float,
    encoder_factor: float,
    decay_all: bool,
    bias_factor: float = 1.0,
    layer_decay: float = 1.0,
) -> list[dict]:
    """Parameter groups for a torch optimizer (`params`, `lr`, `weight_decay`, `name`). Every trainable
    parameter is in exactly one group.

    Learning rates are lr × encoder_factor for the parameters of `network.encoder`, × layer_decay once for
    each later stage of the encoder (`stages_of`), and × bias_factor for biases except those of norm layers.
    Norm layers and biases have no weight decay unless `decay_all`. Groups with the same name (encoder,
    encoder_bias, rest, bias; with layer_decay encoder_0, encoder_1 …) have the same learning rate.
    """
    stage_of = _stages(network, layer_decay)
    last = max(stage_of.values(), default=0)
    norms, biases = _norms_and_biases(network)
    no_decay = set() if decay_all else norms | biases
    scaled_biases = biases if bias_factor != 1 else set()
    groups: dict[tuple[int | None, bool, bool], list] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            kind = stage_of.get(id(parameter)), id(parameter) in scaled_biases, id(parameter) not in no_decay
            groups.setdefault(kind, []).append(parameter)

    def factor(stage: int | None, is_bias: bool) -> float:
        of_encoder = 1.0 if stage is None else encoder_factor * layer_decay ** (last - stage)
        return of_encoder * (bias_factor if is_bias else 1.0)

    return [
        {
            "params": parameters,
            "lr": lr * factor(stage, is_bias),
            "weight_decay": weight_decay if decays else 0.0,
            "name": _name(stage, is_bias, layer_decay),
        }
        for (stage, is_bias, decays), parameters in groups.items()
    ]


def stages_of(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of the stages of an encoder, from its input to its output: of each child, or of each
    item of a child that is a list of stages. A norm layer belongs to the stage before it."""
    stages: list[list[nn.Parameter]] = []
    for child in encoder.children():
        is_list = isinstance(child, nn.ModuleList) or (
            isinstance(child, nn.Sequential) and all(isinstance(part, nn.Sequential) for part in child)
        )
        for part in child if is_list else [child]:
            parameters = list(part.parameters())
            if stages and isinstance(part, NORMS):
                stages[-1] += parameters
            elif parameters:
                stages.append(parameters)
    return stages


def _stages(network: nn.Module, layer_decay: float) -> dict[int, int]:
    """The stage of each parameter of the encoder, by id; 0 for all of them without layer_decay."""
    encoder = dict(network.named_children()).get("encoder")
    if encoder is None:
        return {}
    stage_of = {id(parameter): 0 for parameter in encoder.parameters()}
    if layer_decay != 1:
        for stage, parameters in enumerate(stages_of(encoder)):
            stage_of |= {id(parameter): stage for parameter in parameters}
    return stage_of


def _name(stage: int | None, is_bias: bool, layer_decay: float) -> str:
    """The name of a parameter group."""
    if stage is None:
        return "bias" if is_bias else "rest"
    number = "" if layer_decay == 1 else f"_{stage}"
    return f"encoder{number}_bias" if is_bias else f"encoder{number}"


def _norms_and_biases(network: nn.Module) -> tuple[set[int], set[int]]:
    """Ids of the parameters of norm layers, and of all other biases."""
    norms = {
        id(p)
        for module in network.modules()
        if isinstance(module, NORMS)
        for p in module.parameters(recurse=False)
    }
    return norms, {id(p) for name, p in network.named_parameters() if name.endswith("bias")} - norms
