"""Restores a run from its checkpoint or starts it from the weights of init=, and compares a resumed run's
data with those of its start."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

from segtrain import checkpoint as checkpoints
from segtrain import ranks
from segtrain.checkpoint.initial import start_from
from segtrain.commands.parts import Parts
from segtrain.data import path_keys
from segtrain.data.parts import Data, Split
from segtrain.data.selection import names_below
from segtrain.errors import ConfigError, DataError
from segtrain.evaluate.loop import evenly_spaced
from segtrain.run.saved import with_settled_values
from segtrain.text import flatten, show
from segtrain.train.random_state import distinct_per_rank


def resume_or_init(config, resumed: Path | None, state, parts: Parts) -> list[str]:
    """Restores the state from the checkpoint, or loads the weights of init=; returns summary lines about
    it."""
    if resumed is not None:
        state.restore(checkpoints.load_weights(resumed), checkpoints.load_state(resumed), str(resumed))
        if ranks.is_main():
            _link_best(resumed, parts.saved, state.best, parts.task.score)
        return [f"resuming from {resumed}"]
    distinct_per_rank(config["seed"])
    if config["init"]:
        with torch.no_grad():
            lines = start_from(parts.model, parts.facts, config["init"], parts.initial)
        if state.ema is not None:
            state.ema.load_state_dict(parts.model.state_dict())
        return lines
    return []


COMPARED = 4
"""Number of samples of a split whose content is hashed."""
MAX_HASHED = 50_000
"""Of splits with more samples no image hashes are saved: they would make every checkpoint larger."""
HASH_LETTERS = 8
"""Letters of an image hash."""


def fingerprints(data: Data) -> dict[str, dict]:
    """{"train": …, "val": …}: identifies the samples of a run independently of where the files lie.

    A fingerprint holds the number of samples, a SHA-256 of their names in order (without their common
    folder), a SHA-256 of the decoded images and targets of COMPARED samples, and the image hashes of all
    samples in one text ("" if there are none).
    """
    return {name: _fingerprint(data.splits[name]) for name in ("train", "val")}


def hashes_of(split: Split) -> list[str] | None:
    """The image hashes of a split's samples; None for a split without them or with more than MAX_HASHED."""
    return split.image_hashes() if hasattr(split, "image_hashes") and len(split) <= MAX_HASHED else None


def hashes_in(description: Mapping, split: str) -> frozenset[str]:
    """The image hashes of a split in the description of a checkpoint; empty if it holds none."""
    joined = ((description.get("samples") or {}).get(split) or {}).get("image_hashes") or ""
    return frozenset(joined[start : start + HASH_LETTERS] for start in range(0, len(joined), HASH_LETTERS))


def same_samples(description: Mapping, data: Data) -> bool:
    """Whether the training samples are those of a checkpoint, by number and names."""
    was = (description.get("samples") or {}).get("train") or {}
    train = data.splits.get("train")
    return train is not None and was.get("samples") == len(train) and was.get("names") == _names_hash(train)


def changes_since(description: Mapping, data: Data) -> list[str]:
    """What has changed in the number and names of samples since a checkpoint was saved, in words."""
    now = {
        name: {"samples": len(split), "names": _names_hash(split)}
        for name, split in data.splits.items()
        if name in ("train", "val")
    }
    return list(_changes(description, now).values())


def _names_hash(split: Split) -> str:
    below = "\n".join(names_below(split))
    return hashlib.sha256(below.encode("utf-8", "surrogateescape")).hexdigest()


def _fingerprint(split: Split) -> dict:
    content = hashlib.sha256()
    for index in evenly_spaced(len(split), COMPARED):
        with contextlib.suppress(DataError):  # of an unreadable sample only its name counts
            sample = split[index]
            for array in (sample.image, sample.target):
                content.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
    return {
        "samples": len(split),
        "names": _names_hash(split),
        "content": content.hexdigest(),
        "image_hashes": "".join(hashes_of(split) or []),
    }


def check_samples(config: Mapping, description: dict | None, now: Mapping[str, dict]) -> list[str]:
    """Compares the data of a resumed run with those of its checkpoint. Returns lines for the summary if files
    have moved or the training split has changed; ConfigError if a path changed and the samples there are
    others.

    description: of the checkpoint to resume from; None for a new run. now: `fingerprints` of the present
    data.
    """
    if description is None:
        return []
    was, given = flatten(description["config"]["data"]), flatten(config["data"])
    paths = path_keys(config["data"])
    moved = [f"data.{key}" for key in paths if was.get(key) != given.get(key)]
    changed = _changes(description, now)
    if moved and changed:
        path = given.get(moved[0].removeprefix("data."))
        raise ConfigError(
            f"{moved[0]}={show(path)} does not hold the samples that the run was started with "
            f"({', '.join(changed.values())}); give the place of the same files, or start a new run"
        )
    if moved:
        return [
            f"data      {', '.join(moved)} changed; the samples are the same by number, names and content"
        ]
    if "train" in changed:
        return [
            f"the training split is no longer that of the checkpoint ({changed['train']}): from here on the "
            f"run sees other images, or images in another order"
        ]
    return []


def _changes(description: Mapping, now: Mapping[str, dict]) -> dict[str, str]:
    """{split: what has changed} for each split that differs from that of the checkpoint."""
    # Checkpoints of earlier versions hold the number of training samples alone.
    before = description.get("samples") or {
        "train": {"samples": (description.get("order") or {}).get("samples")}
    }
    changes = {}
    for split, today in now.items():
        then = before.get(split) or {}
        for key, words in (("samples", ""), ("names", "other names"), ("content", "other content")):
            if key in today and then.get(key) not in (None, today[key]):
                changes[split] = f"{split}: {words or f'{then[key]} samples then, {today[key]} now'}"
                break
    return changes


def _link_best(resumed: Path, description: dict, best: float | None, score: str) -> None:
    """Repairs the link `best` after a kill between saving a better checkpoint and linking it."""

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
    """The checkpoint to resume from and its description (None, None if the folder holds none), and the config
    with the values that the run settled at its start."""
    resumed = None if folder is None else checkpoints.to_resume(folder)
    if resumed is None:
        return None, None, config
    description = checkpoints.describe(resumed)
    return resumed, description, with_settled_values(config, description["config"])
