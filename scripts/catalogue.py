"""Writes segtrain/cli/catalogue.json: all that `segtrain list` and `--help` say, so that they need not import
torch.

It also writes the YAML of a table's entry that has none yet. Run it after any change to a table, an option, a
docstring or an experiment; a test compares.
"""

import importlib
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

from segtrain.commands import COMMANDS
from segtrain.commands.describe import numbers
from segtrain.options import REQUIRED, Option, describe, options_of
from segtrain.registry import Table
from segtrain.settings import COMPOSITES

PACKAGE = Path(__file__).resolve().parent.parent
TABLES = ("task", "data", "model", "loss", "optimizer", "schedule", "augmentation", "tta", "metric")
PAPER = re.compile(r"[A-Z][\w-]+(?:, [A-Z][\w-]+)*(?: et al\.| & [A-Z][\w-]+)? (?:19|20)\d\d")
"""`Chen et al. 2018`, `Yu & Koltun 2016`, as docstrings name papers."""
KINDS = {str: "str", int: "int", float: "float", bool: "bool", type(None): "null", None: "null"}


def catalogue() -> dict:
    """Commands with their keys, table entries with their options, experiments with their first line."""
    return {
        "commands": {
            command: {name: _section(settings) for name, settings in row.sections.items()}
            for command, row in COMMANDS.items()
            if row.sections
        },
        "command_groups": {command: list(row.groups) for command, row in COMMANDS.items() if row.sections},
        "composites": list(COMPOSITES),
        "groups": {name: _entries(importlib.import_module(f"segtrain.{name}")) for name in TABLES},
        "experiments": {
            path.stem: about_yaml(path) for path in sorted((PACKAGE / "conf" / "experiment").glob("*.yaml"))
        },
    }


def about_yaml(path: Path) -> str:
    """The first comment of a YAML that is not a header for Hydra."""
    comments = (line[1:].strip() for line in path.read_text("utf-8").splitlines() if line.startswith("#"))
    return next((comment for comment in comments if not comment.startswith("@")), "")


def _section(settings) -> dict:
    return {
        "about": _first_line(settings),
        "keys": {name: _option(option) for name, option in options_of(settings).items()},
    }


def _entries(module) -> dict:
    tables = [value for value in vars(module).values() if isinstance(value, Table)]
    if not tables:
        return {}
    entries = {name: _entry(tables[0].factory(name)) for name in sorted(tables[0]._entries)}
    if tables[0].kind == "model":
        for name, entry in entries.items():
            entry["numbers"] = {"paper": paper(tables[0].factory(name)), **numbers(name)}
    return entries


def paper(factory) -> str | None:
    """The first paper that a factory's docstring names, else the first one that its module's does."""
    for text in (inspect.getdoc(factory) or "", inspect.getmodule(factory).__doc__ or ""):
        found = PAPER.search(text.partition("Options:")[0])
        if found:
            return found[0]
    return None


def _entry(factory) -> dict:
    return {
        "about": _first_line(factory),
        "options": {name: _option(option) for name, option in options_of(factory).items()},
    }


def _first_line(thing) -> str:
    """The docstring's first sentence or line, whichever is longer."""
    lines = inspect.cleandoc(thing.__doc__ or "").partition("\n\n")[0].splitlines()
    taken = lines[:1]
    while taken and not taken[-1].endswith((".", ":")) and len(taken) < len(lines):
        taken.append(lines[len(taken)])
    return " ".join(taken)


def _option(option: Option) -> dict:
    """default is left out where there is none."""
    default = {} if option.default is REQUIRED else {"default": option.default}
    return {
        **default,
        "type": describe(option.annotation),
        "kinds": sorted(kinds(option.annotation)),
        "meaning": option.meaning,
    }


def kinds(annotation) -> set[str]:
    """What a value may look like on a command line: str, int, float, bool, null, list, dict."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kinds(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return set().union(*(kinds(one) for one in arguments))
    if origin is typing.Literal:
        return {KINDS[type(one)] for one in arguments}
    if origin in (list, tuple, Sequence):
        return {"list"}
    if origin in (dict, Mapping):
        return {"dict"}
    if annotation is typing.Any:
        return {*KINDS.values(), "list", "dict"}
    return {KINDS[annotation]}


def text() -> str:
    return json.dumps(catalogue(), indent=1, ensure_ascii=False, default=list) + "\n"


def yaml_of(group: str, name: str) -> dict:
    """What conf/GROUP/NAME.yaml holds: the entry's options with the signature's defaults."""
    table = next(
        value
        for value in vars(importlib.import_module(f"segtrain.{group}")).values()
        if isinstance(value, Table)
    )
    options = options_of(table.factory(name))
    plain = json.loads(
        json.dumps({key: None if one.default is REQUIRED else one.default for key, one in options.items()})
    )
    return {name: plain} if group in COMPOSITES else {"name": name, **plain}


def write_missing_yaml(found: dict) -> None:
    import yaml

    for group in COMMANDS["train"].groups:
        for name in found["groups"][group]:
            path = PACKAGE / "conf" / group / f"{name}.yaml"
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                path.write_text(yaml.safe_dump(yaml_of(group, name), sort_keys=False, width=1000), "utf-8")
                sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    write_missing_yaml(catalogue())
    target = PACKAGE / "segtrain" / "cli" / "catalogue.json"
    target.write_text(text(), "utf-8")
    sys.stdout.write(f"wrote {target}\n")
