"""The network of a checkpoint, with its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from segtrain import checkpoint as checkpoints
from segtrain.checkpoint.finite import not_finite
from segtrain.errors import CheckpointError, ConfigError, SegtrainError
from segtrain.model import MODEL
from segtrain.model.network import Network, as_typed, typed
from segtrain.model.output_stride import at_output_stride
from segtrain.sample import Facts
from segtrain.task import TASK


# Initialisation, whose values are overwritten, draws no random numbers from the caller's generator.
@torch.random.fork_rng(devices=[])
def build_from(
    checkpoint: Path, options: dict | None = None, description: dict | None = None
) -> tuple[Network, Facts, dict]:
    """The network of a checkpoint with its weights, on the CPU; its facts; its description.

    options: of the network, all or some, in place of those that it was trained with: an output stride, which
    rates of dilation follow, or anything else that changes neither name nor shape of a tensor. ConfigError
    names what does.
    description: of the checkpoint, where it was read already.
    """
    description = checkpoints.describe(checkpoint) if description is None else description
    facts = Facts.from_plain(description["facts"])
    task = TASK.build(description["config"]["task"])
    saved, changed = _options_of(description["config"]["model"], options or {})
    output_stride = changed.pop("output_stride", None)
    config = without_weights({**saved, **changed, "name": saved["name"]})
    model = MODEL.build(
        config,
        out_channels=task.out_channels(facts),
        in_channels=facts.channels,
        num_classes=facts.num_classes,
    )
    for key in changed.keys() & {"name", "weights"}:
        advice = _of_training({key: changed[key]}, saved, model)
        raise ConfigError(f"model.{key}={as_typed(changed[key])} cannot change here; {advice}")
    hint = (
        f"; {_of_training(changed, saved, model)}"
        if changed
        else "; use the model options that the run was trained with"
    )
    load_exactly(
        model,
        checkpoints.load_weights(checkpoint),
        str(checkpoint),
        hint,
        ConfigError if changed else CheckpointError,
    )
    if output_stride is not None:
        _refuse_what_follows(model, output_stride, changed)
        model = at_output_stride(model, output_stride)
    return model.eval(), facts, description


def _options_of(config: dict, wanted: dict) -> tuple[dict, dict]:
    """(the network's name and options, those of `wanted` that are different)."""
    name, given = MODEL.check(config)
    saved = {"name": name, **{key: option.default for key, option in MODEL.options(name).items()}, **given}
    wanted = MODEL.check({**config, **wanted, "name": name})[1] | {"name": wanted.get("name", name)}
    return saved, {key: value for key, value in wanted.items() if value != saved[key]}


def _of_training(changed: dict, saved: dict, model: Network) -> str:
    new, old = typed(changed), typed({key: saved[key] for key in changed})
    # A network that is fitted takes nothing over from another run.
    way_out = (
        "train a new run with these options" if model.fits_itself else f"`segtrain train init=RUN {new}`"
    )
    return f"the weights were trained with {old}, and {new} needs others: {way_out}"


def _refuse_what_follows(model: Network, output_stride: int, changed: dict) -> None:
    if model.options is None:
        return
    before, after = vars(model.options), vars(model.options.at(output_stride))
    for key in changed:
        if before.get(key) != after.get(key):
            raise ConfigError(
                f"model.{key} follows model.output_stride={output_stride}; set only one of them"
            )


def without_weights(model_config: dict) -> dict:
    """The network's options for building it when its weights come from a checkpoint."""
    return (
        {**model_config, "weights": "none"}
        if "weights" in MODEL.options(model_config["name"])
        else dict(model_config)
    )


def load_exactly(
    model: Network, weights: dict[str, Tensor], source: str, hint: str, error: type[SegtrainError]
) -> None:
    """All tensors into the model, or an error that says which do not fit or are not finite."""
    resize(model, weights, source)
    own = model.state_dict()
    wrong = [name for name in own if name not in weights] + [name for name in weights if name not in own]
    wrong += [
        name
        for name in own
        if name in weights
        and (own[name].shape, own[name].dtype) != (weights[name].shape, weights[name].dtype)
    ]
    if wrong:
        raise error(
            f"{source} does not fit the network: {len(wrong)} of {len(own)} tensors differ, the first is "
            f"{wrong[0]}{hint}"
        )
    bad = not_finite(weights)
    if bad is not None:
        raise CheckpointError(
            f"{source}: {bad} holds infinities or not-a-numbers, which no prediction can come from; "
            f"use an earlier checkpoint or train anew"
        )
    model.load_state_dict(weights)


def resize(model: Network, weights: dict[str, Tensor], source: str) -> None:
    """Gives a network that was fitted, whose size the data decided, the room that `weights` take."""
    try:
        model.resize_for(weights)
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{source} does not fit the network ({type(error).__name__}: {error})"
        ) from error
