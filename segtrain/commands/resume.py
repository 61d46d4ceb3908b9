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
        _link_best(resumed, parts.saved, state.best, parts.task.score)
        return [f"going on from {resumed}"]
    if config["init"]:
        with torch.no_grad():
            lines = start_from(parts.model, parts.facts, config["init"], parts.initial)
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


def about_other_samples(description: dict | None, order: dict) -> list[str]:
    """What a run that goes on is told if files came, went or changed their names since its checkpoint, which
    `description` is of; [] if none did."""
    before = None if description is None else description.get("order")
    if not isinstance(before, dict) or before == order:
        return []
    counts = f"{before.get('samples')} samples then, {order['samples']} now"
    return [
        f"the training split is no longer that of the checkpoint ({counts}): from here on the run sees "
        f"images in another order"
    ]


def _link_best(resumed: Path, description: dict, best: float | None, score: str) -> None:
    """A kill between the save of a better checkpoint and its link: `best` is made to point at it."""

    def scored(description: dict) -> float | None:
        return (description["scores"] or {}).get(score)

    if best is None or scored(description) != best:
        return
    step, linked = description["step"], checkpoints.read_link(resumed.parent / "best")
    if linked != step and (
        linked is None
        or not (resumed.parent / str(linked)).is_dir()
        or scored(checkpoints.describe(resumed.parent / str(linked))) != best
    ):
        checkpoints.link(resumed.parent.parent, "best", step)


def to_resume(folder: Path | None, config: dict) -> tuple[Path | None, dict | None, dict]:
    """The checkpoint to resume from and its description, None if the folder holds none; the config with what
    that run settled."""
    resumed = None if folder is None else checkpoints.to_resume(folder)
    if resumed is None:
        return None, None, config
    description = checkpoints.describe(resumed)
    return resumed, description, as_settled(config, description)
