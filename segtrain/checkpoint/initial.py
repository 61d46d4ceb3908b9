"""init=: a new run initialised with the weights of another run or of a weights file."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from segtrain.checkpoint.reading import Checkpoint, read
from segtrain.errors import CheckpointError, printable
from segtrain.model.convert import recognised
from segtrain.model.network import Network, typed
from segtrain.sample import Facts
from segtrain.tensors import existing_file, not_finite, read_weights


def start_from(
    model: Network,
    facts: Facts,
    source: str,
    found: Checkpoint | None = None,
) -> list[str]:
    """Copies weights into `model`: those of a run's best checkpoint or of a weights file. Returns lines that
    report what was copied.

    Rows of the heads (`model.head_keys`) are copied by equal class name. Rows of other classes keep their
    initialisation, and so do heads that the source lacks (a new skip connection). Tensors that mix the
    classes with one another (`model.mixing_keys`), and heads without a row for each class (task=binary), are
    copied if the class names are equal and in the same order. Every other tensor must exist in the source
    with the same shape, else CheckpointError. Files of torchvision's and segmentation_models_pytorch's
    networks are recognised by their tensor names, which are mapped to ours.
    found: the best checkpoint of the run, if it was read already.
    """
    found = found or checkpoint_of(source)
    weights, classes = _read(source, found)
    imported = recognised(weights, f"init={source}") if classes is None else None
    weights = imported.tensors if imported else weights
    own, heads = model.state_dict(), set(model.head_keys)
    of_classes = heads | set(model.mixing_keys)
    others = [name for name in own if name not in of_classes]
    wrong = [name for name in others if not _fits(own[name], weights.get(name))]
    if wrong:
        raise CheckpointError(
            f"init={source} does not fit the network: {len(wrong)} of {len(own)} tensors are missing or of "
            f"another shape, "
            f"the first is {wrong[0]}; "
            f"{imported.needs() if imported else _options_of(found)}"
        )
    bad = not_finite({name: weights[name] for name in others})
    if bad is not None:
        raise CheckpointError(f"init={source}: {bad} holds NaN or infinite values; use other weights")
    about_import = imported.about(model, source) if imported else []
    for name in others:
        own[name].copy_(weights[name])
    fresh, copied = [], False
    rows = (
        {}
        if classes is None
        else {classes.index(name): i for i, name in enumerate(facts.classes) if name in classes}
    )
    for name in (name for name in own if name in of_classes):
        tensor, other = own[name], weights.get(name)
        if _fits(tensor, other) and classes in (None, list(facts.classes)):
            tensor.copy_(other)
            copied |= name in heads
        elif rows and name in heads and _alike(tensor, len(facts.classes), other, len(classes)):
            for there, here in rows.items():
                tensor[here].copy_(other[there])
            copied = True
        else:
            fresh.append(name)
    lines = [f"init: {len(others)} of {len(others)} tensors from {printable(source)}", *about_import]
    return [*lines, *_about_heads(facts, classes, fresh, copied)]


def checkpoint_of(source: str | None) -> Checkpoint | None:
    """The best checkpoint of the run `source`; None if `source` is a weights file or None."""
    return read(source, "best", key="init") if source and Path(source).is_dir() else None


def _options_of(found: Checkpoint | None) -> str:
    if found is None:
        return "use the network that the file is of, with its options"
    saved = found.description["config"].get("model", {})
    # `weights` chose the encoder's pretrained weights and changes no shape.
    options = {key: value for key, value in saved.items() if key != "weights"}
    return f"use the network of that run: {typed(options)}"


def _read(source: str, found: Checkpoint | None) -> tuple[dict[str, Tensor], list[str] | None]:
    """The tensors of the source, and its class names (None for a weights file)."""
    if found is None:
        return read_weights(existing_file(source, "init", others="the folder of a run")), None
    return found.weights, list(found.description["facts"]["classes"])


def _fits(tensor: Tensor, other: Tensor | None) -> bool:
    return other is not None and other.shape == tensor.shape


def _alike(tensor: Tensor, rows: int, other: Tensor | None, other_rows: int) -> bool:
    """Whether both have as many rows as their classes, and the rows one shape."""
    return other is not None and (len(tensor), len(other), other.shape[1:]) == (
        rows,
        other_rows,
        tensor.shape[1:],
    )


def _about_heads(facts: Facts, classes: list[str] | None, fresh: list[str], copied: bool) -> list[str]:
    """fresh: names of the head tensors that keep their initialisation. copied: whether a head has rows of the
    source."""
    if classes is None:
        # A file names no classes: heads of its shape are taken as they are.
        return [
            f"init: fresh, for the file has none of their shape: {', '.join(fresh)}"
            if fresh
            else "init: heads copied as they are"
        ]
    unknown = [name for name in facts.classes if name not in classes]
    lines = [f"init: head rows of {len(facts.classes) - len(unknown)} classes copied by name"]
    lines[0] += f"; fresh: {', '.join(unknown)}" if unknown else ""
    lines = lines if copied or not fresh else []
    return [*lines, f"init: fresh, for that run has none that fits: {', '.join(fresh)}"] if fresh else lines
