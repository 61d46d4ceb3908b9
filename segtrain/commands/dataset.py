"""The data set that a command works on, and its splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from segtrain.data import DATA, path_keys
from segtrain.data.folder import refuse_other_split
from segtrain.data.joined import ConcatSplit
from segtrain.data.parts import Data, Split
from segtrain.data.selection import selected
from segtrain.errors import ConfigError, nearest
from segtrain.run.record import read_record
from segtrain.run.saved import relocated
from segtrain.sample import Target
from segtrain.settings import Sampler
from segtrain.text import flatten


def data_of(config: Mapping, run: str, description: Mapping, target: Target) -> Data:
    """The data set for a command on a run. The run's folds and fraction apply if data.name is the run's.
    Relative paths are resolved against the current directory, then against the directory where the run was
    started; the error for a path that exists in neither names that directory."""
    data, saved = config["data"], description["config"]["data"]
    paths = path_keys(data)
    if data["name"] == saved["name"] == "folder":
        refuse_other_split(data, saved)
    try:
        found = DATA.build(located(config, run, description), target=target)
    except ConfigError as error:
        started = read_record(Path(run)).get("directory")
        given, was = flatten(data), flatten(saved)
        kept = [given[key] for key in paths if isinstance(given.get(key), str) and given[key] == was.get(key)]
        lost = any(f"'{path}" in str(error) and not Path(path).is_absolute() for path in kept)
        if lost and started is not None and Path(started) != Path.cwd():
            error.args = (
                f"{error}; {run} was started in {started}, where its relative paths begin: change "
                f"to that directory or override the path",
            )
        raise
    sampler = Sampler(**description["config"].get("sampler") or {})  # earlier versions had none
    return selected(found, sampler) if data["name"] == saved["name"] else found


def located(config: Mapping, run: str, description: Mapping) -> dict:
    """The config of the data set of a run, with its relative paths as `data_of` finds them."""
    data, saved = config["data"], description["config"]["data"]
    return relocated(data, saved, path_keys(data), Path(run))


def split_of(data: Data, name: str) -> Split:
    """The split of that name; "all" is all of them, in their order."""
    if name == "all" and name not in data.splits:
        return ConcatSplit(list(data.splits.values()))
    if name not in data.splits:
        names = [*sorted(data.splits), "all"]
        raise ConfigError(f"split={name} does not exist{nearest(name, names)}; there are {', '.join(names)}")
    return data.splits[name]
