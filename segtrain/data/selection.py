"""Which samples of a data set are trained on and validated on: folds of a cross-validation, and a share of
the training split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from segtrain.data.files.splits import hashed
from segtrain.data.joined import ConcatSplit, SubsetSplit
from segtrain.data.parts import Data, Split
from segtrain.errors import ConfigError
from segtrain.settings import Sampler
from segtrain.text import count

SEED = 1
"""Of the hash of a name; another one than the default of data.split_seed, so that a share of the training
split is not drawn from one end of the hashes that a random split has left to it."""


def selected(data: Data, settings: Sampler) -> Data:
    """The data set with the splits train and val of the section `sampler`.

    Both are functions of the names and groups of the samples, so they are the same at every seed and wherever
    the files lie. ConfigError for a fold that does not exist, or for more folds than groups.
    """
    splits = dict(data.splits)
    if settings.folds is not None:
        splits |= _fold(data, settings.folds, settings.fold)
    elif settings.fold != 0:
        raise ConfigError(f"sampler.fold is {settings.fold} without folds; set sampler.folds, e.g. to 5")
    if settings.fraction < 1:
        splits["train"] = share_of(splits["train"], settings.fraction)
    return replace(data, splits=splits)


def share_of(split: Split, fraction: float) -> SubsetSplit:
    """The samples with the lowest hashes of their names, at least one, in the order of the split: a smaller
    fraction is part of a larger one."""
    names = [name for name, _ in names_and_groups(split)]
    by_hash = sorted(range(len(names)), key=lambda index: (hashed(names[index], SEED), names[index]))
    return SubsetSplit(split, sorted(by_hash[: max(1, round(fraction * len(names)))]))


def _fold(data: Data, folds: int, fold: int) -> dict[str, Split]:
    """The splits train and val with fold number `fold` as val."""
    if fold >= folds:
        raise ConfigError(f"sampler.fold is {fold} of {folds} folds; allowed: 0 to {folds - 1}")
    both = ConcatSplit([data.splits[name] for name in ("train", "val")])
    fold_of = folds_of(names_and_groups(both), folds)
    held_out = [index for index, one in enumerate(fold_of) if one == fold]
    others = [index for index, one in enumerate(fold_of) if one != fold]
    return {"train": SubsetSplit(both, others), "val": SubsetSplit(both, held_out)}


def folds_of(names: Sequence[tuple[str, str]], folds: int) -> list[int]:
    """The fold of each sample. Samples of one group are in one fold; a sample without a group is one by
    itself. Groups go, the largest first and equally large ones in the order of their hashes, to the fold that
    has the fewest samples.

    names: (name, group) of each sample. ConfigError for more folds than groups.
    """
    members: dict[tuple[str, str], list[int]] = {}
    for index, (name, group) in enumerate(names):
        members.setdefault(("group", group) if group else ("name", name), []).append(index)
    if len(members) < folds:
        raise ConfigError(
            f"sampler.folds is {folds}, and the training and validation split have "
            f"{count(len(members), 'group')} of samples, which are kept together; allowed: 2 to "
            f"{len(members)} folds"
            if len(members) > 1
            else f"sampler.folds is {folds}, and all samples of the training and validation split are of one "
            f"group, which cannot be cut; leave sampler.folds null"
        )
    order = sorted(members, key=lambda key: (-len(members[key]), hashed(key[1], SEED), key))
    fold_of, sizes = [0] * len(names), [0] * folds
    for key in order:
        fold = sizes.index(min(sizes))
        sizes[fold] += len(members[key])
        for index in members[key]:
            fold_of[index] = fold
    return fold_of


def names_and_groups(split: Split) -> list[tuple[str, str]]:
    """(name, group) of each sample, read from no file. Of a split that does not tell them: what messages call
    the sample, without the folder that all samples lie in, and no group."""
    if hasattr(split, "names_and_groups"):
        found = split.names_and_groups()
        if found is not None:
            return found
    return [(name, "") for name in names_below(split)]


def names_below(split: Split) -> list[str]:
    """What messages call each sample, without the folder that all of them lie in."""
    names = [split.name(index) for index in range(len(split))]
    try:
        shared = os.path.commonpath([os.path.dirname(name) for name in names])
    except ValueError:  # absolute and relative paths, paths on several drives, or none
        shared = ""
    return [name.removeprefix(shared) for name in names]
