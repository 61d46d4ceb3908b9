"""Tables: the entries (factories) of one kind by name, and how a config builds them."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Callable, Mapping

from segtrain.errors import ConfigError, SegtrainError, nearest
from segtrain.options import RUNTIME, Option, check_options, options_of


class Table:
    """The entries of one kind ("loss"), name -> factory. Installed packages add entries through entry points
    of the group `segtrain.<kind>`."""

    def __init__(self, kind: str, entries: Mapping[str, Callable]):
        self.kind = kind
        self._entries = dict(entries)

    def names(self) -> list[str]:
        return sorted({*self._entries, *self._plugins()})

    def _plugins(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=f"segtrain.{self.kind}")}

    def factory(self, name: str) -> Callable:
        if name in self._entries:
            return self._entries[name]
        plugins = self._plugins()
        if name in plugins:
            return _loaded(plugins[name], f"{self.kind}={name}")
        raise ConfigError(
            f"{self.kind}={name} does not exist{nearest(name, self.names())}; there are "
            f"{', '.join(self.names())}"
        )

    def options(self, name: str) -> dict[str, Option]:
        return options_of(self.factory(name))

    def check(self, config: Mapping) -> tuple[str, dict]:
        """The name of the entry and its checked options, from `{"name": …, option: value}`."""
        if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
            raise ConfigError(f"{self.kind} is {config!r}; it needs a name, one of {', '.join(self.names())}")
        name = config["name"]
        options = {key: value for key, value in config.items() if key != "name"}
        return name, check_options(options, self.factory(name), self.kind, f"{self.kind} {name!r}")

    def build(self, config: Mapping, **runtime):
        """Calls the chosen factory with its options and with the `runtime` keywords that its signature
        names."""
        name, options = self.check(config)
        return _call(self.factory(name), options, runtime)

    def check_each(self, config: Mapping) -> dict[str, dict]:
        """Of a composite group, {entry: checked options} in order. Entries that are null are left out."""
        checked = {}
        for name, options in (config or {}).items():
            if options is None:
                continue
            if not isinstance(options, Mapping):
                raise ConfigError(
                    f"{self.kind}.{name} is {options!r}; it holds the options of {name!r}, or null to "
                    f"remove it"
                )
            checked[name] = check_options(
                options, self.factory(name), f"{self.kind}.{name}", f"{self.kind} {name!r}"
            )
        return checked

    def build_each(self, config: Mapping, **runtime) -> list:
        """The objects of a composite group, in order."""
        return [
            _call(self.factory(name), options, runtime) for name, options in self.check_each(config).items()
        ]


def _loaded(point: importlib.metadata.EntryPoint, typed: str) -> Callable:
    """The factory that an entry point of an installed package names. ConfigError if there is none or its
    import fails."""
    try:
        factory = point.load()
        if not callable(factory):
            raise TypeError(f"{type(factory).__name__} is not a factory")
    except (SegtrainError, MemoryError):
        raise
    except Exception as error:
        package = point.dist.name if point.dist else point.module
        raise ConfigError(
            f"{typed} of the installed package {package} cannot be loaded from {point.value} "
            f"({type(error).__name__}: {error}); correct or reinstall that package"
        ) from error
    return factory


def _call(factory: Callable, options: dict, runtime: dict):
    unknown = set(runtime) - RUNTIME
    assert not unknown, f"not a runtime keyword: {unknown}"
    named = inspect.signature(factory).parameters
    return factory(**options, **{key: value for key, value in runtime.items() if key in named})
