"""The data set that a command works on, and its splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from segtrain.data import DATA
from segtrain.data.joined import Joined
from segtrain.data.parts import Data, Split
from segtrain.errors import ConfigError, nearest
from segtrain.options import path_options
from segtrain.run.record import read_record
from segtrain.run.saved import relocated
from segtrain.sample import Target


def data_of(config: Mapping, run: str, description: Mapping, target: Target) -> Data:
    """The data set of a run. Its relative paths begin in the current directory or, if they do not exist
    there, in the directory that the run was started in, which the error names if they exist in neither."""
    data, saved = config["data"], description["config"]["data"]
    paths = path_options(DATA.factory(data["name"]))
    try:
        return DATA.build(relocated(data, saved, paths, Path(run)), target=target)
    except ConfigError as error:
        started = read_record(Path(run)).get("directory")
        kept = [data[name] for name in paths if isinstance(data[name], str) and data[name] == saved.get(name)]
        lost = any(f"'{path}" in str(error) and not Path(path).is_absolute() for path in kept)
        if lost and started is not None and Path(started) != Path.cwd():
            error.args = (
                f"{error}; {run} was started in {started}, where its relative paths begin: go there or "
                f"give the path anew",
            )
        raise


def split_of(data: Data, name: str) -> Split:
    """The split of that name; "all" is all of them, in their order."""
    if name == "all" and name not in data.splits:
        return Joined(list(data.splits.values()))
    if name not in data.splits:
        names = [*sorted(data.splits), "all"]
        raise ConfigError(f"split={name} does not exist{nearest(name, names)}; there are {', '.join(names)}")
    return data.splits[name]
