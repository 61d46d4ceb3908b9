"""Which samples of a data set are scored, and which of them a run has been trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segtrain.commands.dataset import selected_by, split_of
from segtrain.commands.resume import changes_since, hashes_in, hashes_of, same_samples
from segtrain.data import path_keys
from segtrain.data.parts import Data, Split
from segtrain.errors import ConfigError, printable
from segtrain.text import count, flatten, say


@dataclass(frozen=True)
class Scored:
    """The split to score. lines: to print, about a split that was chosen for the user and about samples that
    the run knows or does not know."""

    name: str
    split: Split
    lines: list[str]


def scored_split(config: Mapping, data: Data, description: Mapping, run: str) -> Scored:
    """The split that config["split"] names. Unset: val of the data that the run was trained on; of other data
    test, or all samples if there is no such split. The run's folds and fraction make the splits of its own
    data, but for `all`.

    description: of the run's checkpoint. run: its folder.
    """
    own = _is_own(config["data"], data, description)
    name, lines = config["split"], []
    if name is None:
        name = "val" if own else "test" if "test" in data.splits else "all"
        if not own:
            lines.append(
                f"split     {name}, the default for other data than {printable(run)} was trained on "
                "(split=NAME)"
            )
    chosen = selected_by(data, description) if own else data
    split = split_of(data if name == "all" else chosen, name)
    if own:
        lines += _changed(chosen, description)
    return Scored(name, split, lines + trained_on(name, split, description, run))


def scored_splits(config: Mapping, data: Data, descriptions: Mapping[str, Mapping]) -> dict[str, Split]:
    """The splits to score, by name: config["splits"], else that of config["split"]. Prints what is said about
    them. descriptions: of the checkpoints, by run."""
    first, *others = descriptions
    chosen = [
        scored_split({**config, "split": name}, data, descriptions[first], first)
        for name in dict.fromkeys(config["splits"] or [config["split"]])
    ]
    about = [line for scored in chosen for line in scored.lines]
    about += [
        line
        for scored in chosen
        for run in others
        for line in trained_on(scored.name, scored.split, descriptions[run], run)
    ]
    if about:
        say(*dict.fromkeys(about))
    return {scored.name: scored.split for scored in chosen}


def trained_on(name: str, split: Split, description: Mapping, run: str) -> list[str]:
    """A line if samples of the split are among those that the run was trained on; none for split=train."""
    known = hashes_in(description, "train")
    hashes = hashes_of(split) if known and name != "train" else None
    shared = sum(one in known for one in hashes or [])
    if not shared:
        return []
    return [
        f"data      warning: {shared} of {len(split)} images are training images of {printable(run)}; the "
        f"scores come out too high"
    ]


def _is_own(options: Mapping, data: Data, description: Mapping) -> bool:
    """Whether the data are those of the run, perhaps moved, with files added or removed, and with sets of
    `concat` left out."""
    saved = description["config"]["data"]
    if saved["name"] != options["name"]:
        return False
    was, given = flatten(saved), flatten(options)
    # Not the keys of `saved`: of several data sets, some may have been left out.
    if all(given.get(key) == was.get(key) for key in path_keys(options)):
        return True
    known = hashes_in(description, "train")
    if not known:
        try:
            return same_samples(description, selected_by(data, description))
        except ConfigError:  # too few groups for the run's folds
            return False
    there = {one for split in data.splits.values() for one in hashes_of(split) or []}
    return 2 * len(known & there) >= len(known)


def _changed(data: Data, description: Mapping) -> list[str]:
    """Lines about samples that have come since the training."""
    known = hashes_in(description, "train") | hashes_in(description, "val")
    if not known:
        changed = changes_since(description, data)
        return [f"data      has changed since the training ({', '.join(changed)})"] if changed else []
    new = {}
    for split in ("train", "val"):
        hashes = (hashes_of(data.splits[split]) if split in data.splits else None) or []
        new[split] = [index for index, one in enumerate(hashes) if one not in known]
    total = sum(map(len, new.values()))
    if not total:
        return []
    where = ", ".join(f"{len(indices)} in {split}" for split, indices in new.items() if indices)
    first = next(data.splits[split].name(indices[0]) for split, indices in new.items() if indices)
    are = count(total, "image is", "images are")
    return [f"data      {are} new or changed since the training: {where}; {printable(first)} first"]
