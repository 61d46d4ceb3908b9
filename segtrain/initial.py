"""Starting a new run from the weights of another one."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from segtrain import checkpoint as checkpoints
from segtrain.errors import CheckpointError, printable
from segtrain.sample import Facts


def start_from(model: nn.Module, facts: Facts, source: str) -> list[str]:
    """Copies the weights of a run (its best checkpoint) or of a weights file; says line by line what was done.

    Rows of the heads (`model.head_keys`) are copied by equal class name; those of other classes stay as they are.
    Every other tensor must be there in its shape, else CheckpointError.
    """
    weights, classes = _read(source)
    own, heads = model.state_dict(), set(getattr(model, "head_keys", ()))
    rows = {} if classes is None else {classes.index(name): i for i, name in enumerate(facts.classes) if name in classes}
    wrong = [name for name, tensor in own.items() if name not in heads and not _fits(tensor, weights.get(name))]
    if wrong:
        raise CheckpointError(
            f"init={source} does not fit the network: {len(wrong)} of {len(own)} tensors are missing or of another shape, "
            f"the first is {wrong[0]}; use the model options of that run"
        )
    for name, tensor in own.items():
        if name not in heads:
            tensor.copy_(weights[name])
        elif classes is not None and name in weights and weights[name].shape[1:] == tensor.shape[1:]:
            for there, here in rows.items():
                tensor[here].copy_(weights[name][there])
        elif classes is None and _fits(tensor, weights.get(name)):
            tensor.copy_(weights[name])
    unlike = [name for name in own if name in heads and not _fits(own[name], weights.get(name))]
    about = _about_heads(facts, classes, unlike)
    return [f"init: {len(own) - len(heads)} of {len(own) - len(heads)} tensors from {printable(source)}", *about]


def _read(source: str) -> tuple[dict[str, Tensor], list[str] | None]:
    """The tensors, and the class names if the source is a run."""
    if Path(source).is_dir():
        found = checkpoints.find(source, "best", key="init")
        return checkpoints.load_weights(found), list(checkpoints.describe(found)["facts"]["classes"])
    return checkpoints.read_weights(source, key="init"), None


def _fits(tensor: Tensor, other: Tensor | None) -> bool:
    return other is not None and other.shape == tensor.shape


def _about_heads(facts: Facts, classes: list[str] | None, unlike: list[str]) -> list[str]:
    if classes is None:
        # A file names no classes: heads of its shape are taken as they are.
        return [f"init: fresh, for the file has none of their shape: {', '.join(unlike)}" if unlike else "init: heads copied as they are"]
    fresh = [name for name in facts.classes if name not in classes]
    copied = len(facts.classes) - len(fresh)
    return [f"init: head rows of {copied} classes copied by name" + (f"; fresh: {', '.join(fresh)}" if fresh else "")]
