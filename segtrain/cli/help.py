"""The texts of `--help` and `segtrain config`, made from the catalogue."""

from __future__ import annotations

import textwrap

from segtrain.cli.catalogue import Keys, load
from segtrain.commands import COMMANDS
from segtrain.errors import unknown_key
from segtrain.text import show, table

GENERAL = """\
segtrain trains, evaluates and runs networks that label every pixel.

{commands}

`segtrain COMMAND --help` shows the keys of a command. Flags of every command:
  --cfg job          print the composed config, and stop
  --multirun, -m     a sweep: one trial for each combination of KEY=A,B values
  --config-dir DIR   your own YAMLs beside segtrain's (DIR/experiment/mine.yaml: experiment=mine)
  --help, -h         --version

Exit codes: 0 done, 1 a fault of segtrain or a sweep with failed runs, 2 config, 3 data,
4 checkpoint or storage, 5 diverged, 6 memory or processes, 128 + N stopped by signal N (130 Ctrl-C,
143 SIGTERM), 141 stdout closed by its reader."""

FOOTER = (
    "Options of a choice: segtrain list GROUP NAME. All keys with their values: segtrain config "
    "{command}. All flags: segtrain --help."
)


def text(command: str | None) -> str:
    """The help of a command; the general help for None."""
    if command is None:
        widest = max(len(row.example) for row in COMMANDS.values())
        return GENERAL.format(
            commands="\n".join(f"  {row.example:<{widest}}  {row.about}" for row in COMMANDS.values())
        )
    row = COMMANDS[command]
    if not row.sections:
        return row.help
    keys = Keys(command)
    return "\n\n".join([row.help, _choices(keys), *_sections(keys), FOOTER.format(command=command)])


def _choices(keys: Keys) -> str:
    rows = {group: ", ".join(keys.entries(group)) for group in keys.groups}
    if "experiment" in keys.choices:
        rows["experiment"] = ", ".join(load()["experiments"])
    return "Choices, KEY=NAME:\n" + "\n".join(f"  {group:<14}{names}" for group, names in rows.items())


def _sections(keys: Keys) -> list[str]:
    texts = []
    for section, content in keys.sections.items():
        prefix = f"{section}." if section else ""
        rows = []
        for name, option in content["keys"].items():
            given = (
                f"{prefix}{name}={show(option['default'])}"
                if "default" in option
                else f"{prefix}{name}=(needed)"
            )
            rows.append(
                textwrap.fill(
                    option["meaning"], 120, initial_indent=f"  {given:<36}", subsequent_indent=" " * 38
                )
            )
        texts.append(f"{section or 'Keys'}: {content['about']}\n" + "\n".join(rows))
    return texts


def config_table(keys: Keys, config: dict, setters: dict[str, str], typed: list[str]) -> str:
    """Every key of a composed config, a line each: key, value, default, who set it, meaning."""
    rows = []
    for key, value, option in _walk(keys, config):
        default = show(option["default"]) if "default" in option else "(needed)" if "type" in option else ""
        setter = _setter(key, setters, typed)
        rows.append((key, show(value), default, setter, option.get("meaning", "")))
    head = ("KEY", "VALUE", "DEFAULT", "SET BY", "MEANING")
    return "\n".join(table(head, rows, left=range(5), widest=40))


def _walk(keys: Keys, config: dict):
    """(key, value, entry of the catalogue) for all keys, including those that the config does not set."""
    for section, content in keys.sections.items():
        values = config if section == "" else config[section]
        for name, option in content["keys"].items():
            yield f"{section}.{name}" if section else name, values.get(name, option.get("default")), option
    for group in keys.groups:
        if group in keys.composites:
            for entry, options in config[group].items():
                if options is not None:
                    yield from _walk_entry(keys, group, entry, options, f"{group}.{entry}")
        else:
            name = config[group].get("name")
            yield group, name, {"meaning": keys.entries(group).get(name, {}).get("about", "")}
            yield from _walk_entry(
                keys, group, name, {k: v for k, v in config[group].items() if k != "name"}, group
            )


def _walk_entry(keys: Keys, group: str, entry: str, values: dict, prefix: str):
    options = keys.entries(group).get(entry, {"options": {}})["options"]
    for name in values if entry in keys.entries(group) else []:
        if name not in options:
            raise unknown_key(f"{prefix}.{name}", f"{group} {entry!r}", options)
    for name in dict.fromkeys([*options, *values]):
        option = options.get(name, {})
        yield f"{prefix}.{name}", values.get(name, option.get("default")), option


def _setter(key: str, setters: dict[str, str], typed: list[str]) -> str:
    """What set a key: the command line, a YAML, or its default."""
    if key in typed or any(key.startswith(one + ".") for one in typed if "." in one):
        return "command line"
    # A group is set by the YAML that holds its `name`.
    origin = setters.get(key) or setters.get(f"{key}.name")
    return origin or "default"
