"""All tables, and the check of a config against them."""

from __future__ import annotations

from collections.abc import Mapping

from segtrain.augmentation import AUGMENTATION
from segtrain.commands import COMMANDS, check_sections
from segtrain.data import DATA
from segtrain.data import path_keys as data_path_keys
from segtrain.loss import LOSS
from segtrain.metric import METRIC
from segtrain.model import MODEL
from segtrain.optimizer import OPTIMIZER
from segtrain.options import path_options
from segtrain.registry import Table
from segtrain.schedule import SCHEDULE
from segtrain.settings import COMPOSITES
from segtrain.task import TASK
from segtrain.tta import TTA

TABLES: dict[str, Table] = {
    table.kind: table for table in (TASK, DATA, MODEL, LOSS, OPTIMIZER, SCHEDULE, AUGMENTATION, TTA, METRIC)
}


def check(command: str, config: Mapping) -> dict:
    """The config with every key and value checked and every default filled in. ConfigError names the key as
    typed."""
    return check_groups(command, check_sections(config, command))


def check_groups(command: str, config: Mapping) -> dict:
    """The config with its groups checked against the signatures of their factories and defaults filled in."""
    return {
        **config,
        **{group: _checked_group(group, config.get(group)) for group in COMMANDS[command].groups},
    }


def path_keys(config: Mapping) -> list[str]:
    """The keys of a training config that hold a path of a file or folder, such as data.root."""
    row = COMMANDS["train"]
    keys = [
        f"{name}.{option}".lstrip(".") for name, one in row.sections.items() for option in path_options(one)
    ]
    keys += [f"data.{key}" for key in data_path_keys(config["data"])]
    for group in (group for group in row.groups if group not in (*COMPOSITES, "data")):
        keys += [f"{group}.{option}" for option in path_options(TABLES[group].factory(config[group]["name"]))]
    return keys


def _checked_group(group: str, config) -> dict:
    table = TABLES[group]
    if group in COMPOSITES:
        return {
            entry: _with_defaults(table, entry, options)
            for entry, options in table.check_each(config or {}).items()
        }
    name, options = table.check(config)
    return {"name": name, **_with_defaults(table, name, options)}


def _with_defaults(table: Table, name: str, options: Mapping) -> dict:
    return {**{key: option.default for key, option in table.options(name).items()}, **options}
