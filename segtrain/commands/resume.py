"""Weights from a checkpoint or from init=, and what a resumed run is told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from segtrain import checkpoint as checkpoints
from segtrain.checkpoint.initial import start_from
from segtrain.commands.parts import Parts, as_settled


def resume_or_init(config, resumed: Path | None, state, parts: Parts) -> list[str]:
    """Puts weights into the state; what was done, line by line."""
    if resumed is not None:
        state.restore(checkpoints.load_weights(resumed), checkpoints.load_state(resumed), str(resumed))
        _link_best(resumed, state.best, parts.task.score)
        return [f"going on from {resumed}"]
    if config["init"]:
        with torch.no_grad():
            lines = start_from(parts.model, parts.facts, config["init"])
        if state.ema is not None:
            state.ema.load_state_dict(parts.model.state_dict())
        return lines
    return []


def order_of(split) -> dict:
    """How many samples a split has and a hash of their names in order: what the order of training follows
    from."""
    names = hashlib.sha256()
    for index in range(len(split)):
        names.update(split.name(index).encode("utf-8", "surrogateescape") + b"\n")
    return {"samples": len(split), "names": names.hexdigest()}


def about_other_samples(resumed: Path | None, order: dict) -> list[str]:
    """What a run that goes on is told if files came, went or changed their names since its checkpoint; [] if
    none did."""
    before = None if resumed is None else checkpoints.describe(resumed).get("order")
    if not isinstance(before, dict) or before == order:
        return []
    counts = f"{before.get('samples')} samples then, {order['samples']} now"
    return [
        f"the training split is no longer that of the checkpoint ({counts}): from here on the run sees "
        f"images in another order"
    ]


def _link_best(resumed: Path, best: float | None, score: str) -> None:
    """A kill between the save of a better checkpoint and its link: `best` is made to point at it."""

    def scored(checkpoint: Path) -> float | None:
        return (checkpoints.describe(checkpoint)["scores"] or {}).get(score)

    if best is None or scored(resumed) != best:
        return
    linked = checkpoints.read_link(resumed.parent / "best")
    if (
        linked is None
        or not (resumed.parent / str(linked)).is_dir()
        or scored(resumed.parent / str(linked)) != best
    ):
        checkpoints.link(resumed.parent.parent, "best", checkpoints.describe(resumed)["step"])


def to_resume(folder: Path | None, config: dict) -> tuple[Path | None, dict]:
    """The checkpoint to resume from, None if the folder holds none; the config with what that run settled."""
    resumed = None if folder is None else checkpoints.to_resume(folder)
    return resumed, config if resumed is None else as_settled(config, checkpoints.describe(resumed))
