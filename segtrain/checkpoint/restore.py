"""Building the network of a checkpoint and loading its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrain.checkpoint.reading import Checkpoint
from segtrain.errors import CheckpointError, ConfigError, SegtrainError
from segtrain.model import MODEL
from segtrain.model.network import MEMORY_FORMATS, Network, as_typed, typed
from segtrain.model.output_stride import at_output_stride
from segtrain.sample import Facts
from segtrain.task import TASK
from segtrain.tensors import not_finite


# The initialisation is overwritten, so it must not advance the caller's random state.
@torch.random.fork_rng(devices=[])
def build_from(checkpoint: Checkpoint, options: dict | None = None) -> tuple[Network, Facts]:
    """The network of a checkpoint with its weights loaded, on the CPU in evaluation mode, and its facts. The
    weights have the memory format that the run was trained in, which is the faster one if it was probed.

    options: options of the network that replace the saved ones, such as another output stride (dilation rates
    follow it), as long as no tensor changes its name or shape. ConfigError names an option that would.
    """
    description = checkpoint.description
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
    for key in [key for key in ("name", "weights") if key in changed]:
        advice = _of_training({key: changed[key]}, saved)
        raise ConfigError(f"model.{key}={as_typed(changed[key])} cannot change here; {advice}")
    hint = (
        f"; {_of_training(changed, saved)}"
        if changed
        else "; use the model options that the run was trained with"
    )
    load_exactly(
        model,
        checkpoint.weights,
        str(checkpoint.path),
        hint,
        ConfigError if changed else CheckpointError,
    )
    if output_stride is not None:
        _refuse_what_follows(model, output_stride, changed)
        model = at_output_stride(model, output_stride)
    memory_format = (description["config"].get("trainer") or {}).get("memory_format")
    model.to(memory_format=MEMORY_FORMATS.get(memory_format, torch.contiguous_format))
    return model.eval(), facts


def _options_of(config: dict, wanted: dict) -> tuple[dict, dict]:
    """(saved name and options with defaults filled in, those options of `wanted` that differ)."""
    name, given = MODEL.check(config)
    saved = {"name": name, **{key: option.default for key, option in MODEL.options(name).items()}, **given}
    wanted = MODEL.check({**config, **wanted, "name": name})[1] | {"name": wanted.get("name", name)}
    return saved, {key: value for key, value in wanted.items() if value != saved[key]}


def _of_training(changed: dict, saved: dict) -> str:
    # Not init=RUN: where these weights do not fit, it would not take them either.
    return (
        f"the weights were trained with {typed({key: saved[key] for key in changed})}; for others train a "
        f"new run with {typed(changed)}"
    )


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
    """The options of the network with weights=none, so that no pretrained weights are loaded before those of
    a checkpoint."""
    return (
        {**model_config, "weights": "none"}
        if "weights" in MODEL.options(model_config["name"])
        else dict(model_config)
    )


def load_exactly(
    model: Network, weights: dict[str, Tensor], source: str, hint: str, error: type[SegtrainError]
) -> None:
    """Loads all tensors into the network. The error names tensors that are missing, unexpected, of another
    shape or dtype, or not finite."""
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
            f"{source}: {bad} holds NaN or infinite values, which no prediction can come from; "
            f"use an earlier checkpoint or train anew"
        )
    model.load_state_dict(weights)


def resize(model: Network, weights: dict[str, Tensor], source: str) -> None:
    """Resizes a network whose tensor shapes depend on the data it was fitted to, so that `weights` fit."""
    try:
        model.resize_for(weights)
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{source} does not fit the network ({type(error).__name__}: {error})"
        ) from error
