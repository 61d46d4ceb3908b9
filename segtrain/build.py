"""All tables, and the check of a whole config against them and the fixed sections."""

from __future__ import annotations

from collections.abc import Mapping

from segtrain.augmentation import AUGMENTATION
from segtrain.data import DATA
from segtrain.errors import ConfigError, nearest
from segtrain.loss import LOSS
from segtrain.metric import METRIC
from segtrain.model import MODEL
from segtrain.optimizer import OPTIMIZER
from segtrain.options import check_options, options_of
from segtrain.registry import Table
from segtrain.schedule import SCHEDULE
from segtrain.settings import COMMANDS, COMPOSITES
from segtrain.task import TASK
from segtrain.tta import TTA

TABLES: dict[str, Table] = {
    table.kind: table for table in (TASK, DATA, MODEL, LOSS, OPTIMIZER, SCHEDULE, AUGMENTATION, TTA, METRIC)
}


def check(command: str, config: Mapping) -> dict:
    """The config with every key and value checked and every default filled in; ConfigError names the key as
    typed."""
    row = COMMANDS[command]
    sections, groups = row.sections, row.groups
    top = {key: value for key, value in config.items() if key not in sections and key not in groups}
    _refuse_unknown(command, top)
    checked = _filled(top, sections[""], "")
    _refuse_empty(checked, sections[""])
    for name, settings in sections.items():
        if name:
            checked[name] = _filled(config.get(name) or {}, settings, name)
    for group in groups:
        checked[group] = _checked_group(group, config.get(group))
    return checked


def _refuse_unknown(command: str, top: Mapping) -> None:
    row = COMMANDS[command]
    known = [
        *options_of(row.sections[""]),
        *(name for name in row.sections if name),
        *row.groups,
    ]
    for key in top:
        if key not in known:
            raise ConfigError(
                f"{key} is not a key of segtrain {command}{nearest(key, known)}; keys are "
                f"{', '.join(sorted(known))}"
            )


def _refuse_empty(top: Mapping, settings) -> None:
    """ConfigError for a text of nothing: an empty path would be taken for the current folder."""
    for key, option in options_of(settings).items():
        if top[key] == "":
            raise ConfigError(f"{key} is empty (an unset variable of the shell?); give {option.meaning}")


def _filled(values: Mapping, settings, where: str) -> dict:
    what = f"section {where}" if where else "the command"
    given = check_options(values, settings, where, what)
    defaults = {name: option.default for name, option in options_of(settings).items()}
    return {**defaults, **given}


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
