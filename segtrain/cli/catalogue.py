"""The entries and keys that a user can choose and set, read from catalogue.json, so that listing them imports
neither torch nor Hydra."""

from __future__ import annotations

import functools
import importlib.resources
import json
from pathlib import Path

from segtrain.commands import COMMANDS
from segtrain.errors import ConfigError, nearest
from segtrain.text import show

PLURALS = {
    "models": "model",
    "losses": "loss",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "augmentations": "augmentation",
    "tasks": "task",
    "metrics": "metric",
    "experiment": "experiments",
    "encoder": "encoders",
    "datasets": "data",
}
"""Other names that `segtrain list` accepts for a group."""


@functools.cache
def load() -> dict:
    """The catalogue, as scripts/catalogue.py generated it."""
    return json.loads(importlib.resources.files("segtrain.cli").joinpath("catalogue.json").read_text("utf-8"))


class Keys:
    """The keys of one command: which exist, which types of values they take, and which key is most similar to
    an unknown one."""

    def __init__(self, command: str):
        self.command = command
        self.sections: dict = load()["commands"][command]
        self.groups: list[str] = load()["command_groups"][command]
        self.composites: list[str] = [group for group in load()["composites"] if group in self.groups]
        self.choices = [*self.groups, *(["experiment"] if COMMANDS[command].takes_experiment else [])]

    def known(self, first: str) -> bool:
        """Whether `first` is the first word of a key."""
        return (
            first in self.choices
            or first in self.sections[""]["keys"]
            or (first != "" and first in self.sections)
        )

    def first_words(self) -> list[str]:
        return [*self.choices, *self.sections[""]["keys"], *(name for name in self.sections if name)]

    def entries(self, group: str) -> dict:
        return load()["groups"].get(group, {})

    def options(self, key: str) -> list[dict]:
        """The catalogue entries of a key: one for each entry of its group that has such an option, or that of
        its section."""
        first, _, rest = key.partition(".")
        if not rest:
            return [self.sections[""]["keys"][first]] if first in self.sections[""]["keys"] else []
        if first in self.groups:
            entry, _, option = rest.partition(".") if first in self.composites else (None, None, rest)
            found = [
                entry_data["options"].get(option)
                for name, entry_data in self.entries(first).items()
                if entry in (None, name)
            ]
            return [one for one in found if one]
        keys = self.sections.get(first, {"keys": {}})["keys"]
        return [keys[rest]] if rest in keys else []

    def kinds(self, key: str) -> set[str] | None:
        """The types that the key may hold, among str, int, float, bool, null, list and dict; None if the key
        is not in the catalogue."""
        found = self.options(key)
        return set().union(*(one["kinds"] for one in found)) if found else None

    def all(self) -> list[str]:
        """All keys of the catalogue, as typed."""
        keys = [
            f"{section}.{key}" if section else key
            for section, content in self.sections.items()
            for key in content["keys"]
        ]
        for group in self.groups:
            for name, entry in self.entries(group).items():
                keys += [
                    f"{group}.{name}.{key}" if group in self.composites else f"{group}.{key}"
                    for key in entry["options"]
                ]
        return [*self.choices, *dict.fromkeys(keys)]

    def nearest(self, key: str) -> str:
        """The hint `(did you mean …?)` for a key whose first word does not exist: a key with the same last
        word, else one with a similar first word; "" if there is none."""
        ends = [one for one in self.all() if one.rpartition(".")[2] == key]
        if ends:
            return f" (did you mean {ends[0]!r}?)"
        first, dot, rest = key.partition(".")
        hint = nearest(first, self.first_words())
        return hint.replace("'?)", f"{dot}{rest}'?)") if hint else nearest(key, self.all())


def listing(words: list[str], config_dir: str | None = None) -> str:
    """The output of `segtrain list WORDS`."""
    if not words:
        return _kinds_of_lists()
    kind = PLURALS.get(words[0], words[0])
    if kind == "encoders":
        return _encoders(words[1:])
    if kind == "experiments":
        return _table({**load()["experiments"], **_own_yaml("experiment", config_dir)}, "experiment")
    if kind not in load()["groups"]:
        there = [*load()["groups"], "experiments", "encoders"]
        raise ConfigError(
            f"list {words[0]}: there is no such list{nearest(words[0], [*there, *PLURALS])}; there are "
            f"{', '.join(there)}"
        )
    if len(words) > 1:
        return "\n\n".join(_entry(kind, name) for name in words[1:])
    shipped = {name: entry["about"] for name, entry in load()["groups"][kind].items()}
    table = _table({**shipped, **_plugins(kind), **_own_yaml(kind, config_dir)}, kind)
    return f"{_numbers(load()['groups'][kind])}\n\n{table}" if kind == "model" else table


def _kinds_of_lists() -> str:
    rows = {kind: ", ".join(entries) for kind, entries in load()["groups"].items()}
    rows["experiments"] = ", ".join(load()["experiments"])
    rows["encoders"] = "networks of timm that can be an encoder"
    lines = "\n".join(f"  {kind:<14}{names}" for kind, names in rows.items())
    return f"segtrain list KIND describes each; segtrain list KIND NAME its options.\n\n{lines}"


def _table(rows: dict[str, str], kind: str) -> str:
    width = max((len(name) for name in rows), default=0) + 2
    lines = "\n".join(f"{name:<{width}}{about}".rstrip() for name, about in sorted(rows.items()))
    return lines or f"no {kind} yet"


def _numbers(networks: dict[str, dict]) -> str:
    """How large each network is, as a table."""
    rows = [("", "paper", "parameters", "multiply-adds", "encoder", "output stride")]
    sizes = {}
    for name, network in networks.items():
        number = network["numbers"]
        size = number["size"]
        sizes.setdefault(size, []).append(name)
        strides = ", ".join(map(str, number["output_strides"] or ["-"]))
        amounts = (_amount(number["parameters"]), _amount(number["multiply_adds"]))
        rows.append((name, number["paper"] or "-", *amounts, number["encoder"] or "-", strides))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    table = "\n".join(
        "  ".join(
            cell.rjust(width) if column in (2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    usual = max(filter(None, sizes), key=lambda size: len(sizes[size]))
    others = "".join(
        f"; {', '.join(names)}: {size}x{size}" for size, names in sizes.items() if size not in (usual, None)
    )
    note = f"With the default options and 21 classes; multiply-adds of an image of {usual}x{usual}{others}."
    return f"{table}\n\n{note} Of other options: segtrain describe model=NAME."


def _amount(number: int | None) -> str:
    """69223317504 -> '69.2 G'."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number is not None and number >= size:
            return f"{number / size:.{max(0, 3 - len(str(number // size)))}f} {unit}"
    return "-" if number is None else str(number)


def _entry(kind: str, name: str) -> str:
    entries = load()["groups"][kind]
    if name not in entries:
        raise ConfigError(
            f"list {kind} {name}: does not exist{nearest(name, entries)}; there are {', '.join(entries)}"
        )
    prefix = f"{kind}.{name}" if kind in load()["composites"] else kind
    lines = [f"{kind}={name}", f"  {entries[name]['about']}"]
    for key, option in entries[name]["options"].items():
        lines.append(f"  {prefix}.{key}={show(option['default']) if 'default' in option else '(needed)'}")
        lines.append(f"      {option['meaning']}; {option['type']}")
    return "\n".join(lines)


def plugin_names(group: str) -> dict[str, str]:
    """The entries that installed packages add to a group, name -> package. Imports none of them."""
    return {name: package for kind, name, package in _entry_points() if kind == f"segtrain.{group}"}


@functools.cache
def _entry_points() -> list[tuple[str, str, str]]:
    """(group, name, package) of every entry point of segtrain. Cached: reading the metadata of all installed
    packages is slow, and it does not change during a process."""
    import importlib.metadata

    found = (
        (point, package) for package in importlib.metadata.distributions() for point in package.entry_points
    )
    return [
        (point.group, point.name, package.name)
        for point, package in found
        if point.group.startswith("segtrain.")
    ]


def _plugins(group: str) -> dict[str, str]:
    shipped = load()["groups"][group]
    return {
        name: f"from the package {package}"
        for name, package in plugin_names(group).items()
        if name not in shipped
    }


def _own_yaml(group: str, config_dir: str | None) -> dict[str, str]:
    if config_dir is None:
        return {}
    return {path.stem: f"from {path}" for path in sorted((Path(config_dir) / group).glob("*.yaml"))}


FAMILIES = (
    "resnet",
    "resnext",
    "wide_resnet",
    "regnet",
    "mobilenet",
    "efficientnet",
    "tf_",
    "convnext",
    "xception",
)


def _encoders(patterns: list[str]) -> str:
    """Names for model.encoder. Only timm can tell, and importing it takes seconds."""
    import timm

    names = [name for name in timm.list_models() if name.startswith(FAMILIES)]
    names = ["small", *names]
    found = [name for name in names if all(pattern in name for pattern in patterns)]
    if not found:
        raise ConfigError(
            f"list encoders {' '.join(patterns)}: none of {len(names)} names holds that; try `segtrain "
            f"list encoders resnet`"
        )
    return "\n".join(found)
