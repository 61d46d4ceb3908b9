"""Composition: turns the overrides of a command line into one plain dict, with Hydra.

Hydra's own node (launchers, callbacks, logging) can name code to run. The node is composed from the shipped
YAMLs only and is never run: a user's YAML that mentions hydra is refused before Hydra merges it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Any

from segtrain.cli.catalogue import Keys, load, plugin_names
from segtrain.cli.hydra_errors import as_config_error
from segtrain.cli.overrides import Typed, check_choice, quoted
from segtrain.cli.own_yaml import checked_folder, register_source, source_of
from segtrain.cli.resolvers import limit_interpolations, restrict_resolvers
from segtrain.commands import COMMANDS, check_sections, of_one_run
from segtrain.errors import ConfigError
from segtrain.options import options_of
from segtrain.text import flatten


class Composer:
    """Composes configs with Hydra. Created once per command and used for each trial of a sweep."""

    def __init__(self, command: str, config_dir: str | None = None, saved: Mapping | None = None):
        """saved: config of the run that the command works on; each of its groups is offered to Hydra as the
        option `saved`."""
        self.keys = Keys(command)
        self.command, self.saved = command, saved
        self.config_dir = None if config_dir is None else checked_folder(config_dir)

    @contextlib.contextmanager
    def ready(self) -> Iterator[Composer]:
        """A context in which `compose`, `options` and `setters` work."""
        from hydra import initialize_config_module
        from hydra.core.global_hydra import GlobalHydra

        if importlib.util.find_spec("segtrain.conf") is None:
            raise ConfigError(
                "the configs of segtrain are missing: it runs from its sources and is not installed; "
                "pip install -e ."
            )
        GlobalHydra.instance().clear()
        with (
            _config_store(self.command, self.keys, self.saved),
            initialize_config_module("segtrain.conf", version_base="1.3"),
        ):
            restrict_resolvers()
            register_source()
            self._loader = GlobalHydra.instance().config_loader()
            yield self

    def _search_path(self) -> list[str]:
        return (
            []
            if self.config_dir is None
            else [f"hydra.searchpath=[{quoted(f'checked://{self.config_dir}')}]"]
        )

    def options(self, group: str) -> list[str]:
        """The names of a group's entries, as in `group=NAME`."""
        return self._loader.get_group_options(
            group, overrides=self._search_path(), config_name=self._config_name()
        )

    def get_group_options(self, group: str, results_filter=None) -> list[str]:
        """The names for Hydra's glob(…), without `saved`, which is no entry of a table."""
        return [name for name in self.options(group) if name != "saved"]

    def _config_name(self) -> str:
        row = COMMANDS[self.command]
        return "resumed" if self.saved is not None and not row.needs_run else row.file_name

    def compose(self, typed: list[Typed]) -> dict:
        """The resolved config as plain dicts, lists, numbers and strings. The fixed sections are checked; the
        groups are checked later, against the tables."""
        for one in typed:
            if (
                one.key in self.keys.groups
                and isinstance(one.value, list)
                and one.key not in self.keys.composites
            ):
                raise ConfigError(
                    f"{one.key}={one.text} gives several names; a run has one {one.key}: add --multirun "
                    f"for one run each"
                )
            if one.key == "experiment" and self._config_name() == "resumed":
                raise ConfigError(
                    f"experiment={one.text} cannot be chosen for a resumed run, which keeps its saved "
                    f"config; leave experiment out, or leave resume out to start a new run"
                )
            if one.key in self.keys.choices and one.value is not None:
                check_choice(one, self.options)
        config, _ = self._composed(typed)
        chosen = [one for one in typed if one.key in self.keys.groups]
        if chosen and any(one.key == "experiment" for one in typed):
            plain, _ = self._composed([one for one in typed if one.key != "experiment"])
            for group in self._replaced(typed):
                config[group] = plain.get(group)
            for one in chosen:
                if one.key in self.keys.composites:
                    config[one.key] = _of_chosen_entries(config.get(one.key), plain.get(one.key), one.value)
        return checked_sections(self._with_one_length(self._with_saved_data(config, typed), typed), self.keys)

    def compose_run(self, typed: list[Typed]) -> dict:
        """The config of a single run: as `compose`, without the sections of a sweep."""
        return of_one_run(self.compose(typed))

    def _with_saved_data(self, config: dict, typed: list[Typed]) -> dict:
        """Where the data set of the saved run is chosen again (data=folder data.root=/other), options left
        null take the values that the run settled, such as class names and label_map. Paths are not taken
        over; an option that the user set to null stays null.
        """
        data, saved = config.get("data"), (self.saved or {}).get("data")
        if isinstance(data, dict) and isinstance(saved, Mapping) and data.get("name") == saved.get("name"):
            for key in data.keys() - {one.key.removeprefix("data.") for one in typed}:
                if data[key] is None and not isinstance(saved.get(key), str):
                    data[key] = saved.get(key)
        return config

    def _composed(self, typed: list[Typed]) -> tuple[dict, dict]:
        """The resolved config, and {group: chosen entry}."""
        from hydra import compose
        from omegaconf import OmegaConf

        try:
            composed = compose(
                self._config_name(),
                self._search_path() + [one.line for one in typed],
                return_hydra_config=True,
            )
            choices = OmegaConf.to_container(composed.hydra.runtime.choices)
            OmegaConf.set_struct(composed, False)
            del composed["hydra"]
            limit_interpolations(OmegaConf.to_container(composed, resolve=False))
            return OmegaConf.to_container(composed, resolve=True, throw_on_missing=True), choices
        except Exception as error:
            raise as_config_error(error, typed) from error

    def _replaced(self, typed: list[Typed]) -> list[str]:
        """Groups in which the user's choice replaced that of an experiment.

        The experiment's options of such a group were meant for its own entry; the user's entry starts from
        its defaults.
        """
        groups = [
            one.key for one in typed if one.key in self.keys.groups and one.key not in self.keys.composites
        ]
        if not groups or not any(one.key == "experiment" for one in typed):
            return []
        now = self._composed(typed)[1]
        before = self._composed([one for one in typed if one.key not in groups])[1]
        return [group for group in groups if now.get(group) != before.get(group)]

    def setters(self, typed: list[Typed]) -> dict[str, str]:
        """For each key that a YAML sets, the last YAML that sets it: 'conf/loss/dice.yaml', 'experiment
        demo', or the path of a user's YAML."""
        replaced = tuple(f"{group}." for group in self._replaced(typed))
        found: dict[str, str] = {}
        for origin, values in self._yamls(typed):
            passed_over = replaced if origin.startswith("experiment ") else ()
            found.update({key: origin for key in values if not key.startswith(passed_over)})
        return found

    def _with_one_length(self, config: dict, typed: list[Typed]) -> dict:
        """`config` with only the later one of trainer.steps and trainer.epochs, where different YAMLs or
        overrides set them.

        Both stay if one YAML or the command line sets both; the training then requires that they agree.
        """
        trainer = config.get("trainer")
        lengths = ("trainer.steps", "trainer.epochs")
        if not isinstance(trainer, dict) or None in (trainer.get("steps"), trainer.get("epochs")):
            return config
        overrides = {one.key: one.value for one in typed}
        for values in (overrides, *(values for _, values in reversed(list(self._yamls(typed))))):
            given = [key for key in lengths if values.get(key) is not None]
            if len(given) == 1:
                [other] = set(lengths) - set(given)
                trainer[other.removeprefix("trainer.")] = None
            if given:
                break
        return config

    def _yamls(self, typed: list[Typed]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(origin, {key: value}) of each YAML in the order of composition: a later YAML overrides earlier
        ones."""
        from hydra.types import RunMode

        lines = self._search_path() + [one.line for one in typed]
        for default in self._loader.compute_defaults_list(self._config_name(), lines, RunMode.RUN).defaults:
            if default.config_path and not default.config_path.startswith(("hydra", "settings")):
                yield self._yaml(default)

    def _yaml(self, default) -> tuple[str, dict[str, Any]]:
        for source in self._loader.get_sources() + ([source_of(self.config_dir)] if self.config_dir else []):
            if source.is_config(default.config_path):
                node = source.load_config(default.config_path).config
                origin = (
                    f"{source.path}/{default.config_path}.yaml"
                    if source.scheme() == "checked"
                    else f"conf/{default.config_path}.yaml"
                )
                origin = re.sub(r"^conf/experiment/(.*)\.yaml$", r"experiment \1", origin)
                return origin, {
                    f"{default.package}.{key}".lstrip("."): value
                    for key, value in flatten(_plain(node)).items()
                    if not key.startswith("defaults")
                }
        return "", {}


def _plain(node) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=False)


@contextlib.contextmanager
def _config_store(command: str, keys: Keys, saved: Mapping | None) -> Iterator[None]:
    """Registers the fixed sections, the plug-ins and the saved groups in Hydra's ConfigStore for the
    block."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    nodes = _stored_nodes(command, keys, saved)
    try:
        for (group, name), node in nodes.items():
            package = "_global_" if group == "settings" else None
            store.store(group=group, name=name, package=package, node=node, provider="segtrain")
        yield
    finally:
        for group, name in nodes:
            (store.repo if group is None else store.repo[group]).pop(f"{name}.yaml", None)
            if group is not None and not store.repo[group]:
                del store.repo[group]


def _stored_nodes(command: str, keys: Keys, saved: Mapping | None) -> dict[tuple[str | None, str], dict]:
    """{(group, name): config node} for the ConfigStore."""
    nodes: dict = {("settings", COMMANDS[command].file_name): _defaults_of_sections(command, saved)}
    for group in keys.groups:
        for name in plugin_names(group):
            if name not in load()["groups"].get(group, {}):
                # The name alone: a plug-in is imported only when it is chosen. The check then fills in its
                # defaults.
                nodes[group, name] = {name: {}} if group in keys.composites else {"name": name}
        if saved is not None:
            nodes[group, "saved"] = dict(saved.get(group) or {})
    if saved is not None:
        defaults = [f"settings/{command}", *({group: "saved"} for group in keys.groups), "_self_"]
        nodes[None, "resumed"] = {"defaults": defaults}
    return nodes


def _defaults_of_sections(command: str, saved: Mapping | None) -> dict:
    """The fixed sections as plain dicts: the defaults of their dataclasses, updated by the saved config."""
    from segtrain.options import REQUIRED

    saved = saved or {}
    result: dict = {}
    for section, settings in COMMANDS[command].sections.items():
        node = {
            name: None if option.default is REQUIRED else option.default
            for name, option in options_of(settings).items()
        }
        if section in COMMANDS[command].of_sweep:
            kept = {}
        elif section:
            kept = saved.get(section) or {}
        else:  # the top-level keys of a run are those of train; evaluate and predict have others
            kept = saved if command == "train" else {}
        node.update({name: kept[name] for name in node if name in kept})
        result.update(node if section == "" else {section: node})
    return result


def checked_sections(config: dict, keys: Keys) -> dict:
    """`config` with its fixed sections checked and each group as a mapping."""
    if "experiment" in config:
        raise ConfigError(
            f"experiment is not an option of segtrain {keys.command}; an experiment begins with the line "
            f"`# @package _global_`"
        )
    groups = {group: _group(config.get(group), group, keys) for group in keys.groups}
    return check_sections({**config, **groups}, keys.command)


def _group(value: Any, group: str, keys: Keys) -> dict:
    if value is None and group in keys.composites:
        return {}
    if value is None:
        raise ConfigError(
            f"{group} is missing; choose one by {group}=NAME, of {', '.join(keys.entries(group))}"
        )
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{group} is {value!r}; choose one by {group}=NAME and set its options by {group}.KEY=VALUE"
        )
    return dict(value)


def _of_chosen_entries(composed: Mapping | None, plain: Mapping | None, names: Any) -> dict:
    """The entries of a composite group that the user chose as `names`, with the experiment's options for
    them.

    composed: the group with the experiment applied; plain: without it. An entry that the experiment removed
    (null) is restored if the user names it.
    """
    composed, plain = composed or {}, plain or {}
    named = names if isinstance(names, list) else [names]
    return {
        entry: plain[entry] if composed[entry] is None and entry in named else composed[entry]
        for entry in plain
    }
