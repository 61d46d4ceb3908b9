"""Names to factories. A factory's signature is the schema of its options: one checker for every key a user can type."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

from segtrain.errors import ConfigError, nearest

RUNTIME = frozenset(
    {
        "num_classes",  # C of the data set
        "ignore_index",  # the target value without a label
        "facts",  # segtrain.sample.Facts of the data set
        "in_channels",  # K of its images
        "out_channels",  # channels that the task asks of the network
        "class_frequency",  # () -> data.stats.Frequency of the training split, counted when first called
        "fill",  # K image values that stand for "nothing here": the mean pixel
        "network",  # the built network (optimizers)
        "steps",  # optimizer steps of the whole run (schedules)
    }
)
"""Keywords that the program supplies. A factory receives those that it names, and a user may set none of them."""

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """One key: its type, its default (REQUIRED if there is none) and what it means."""

    name: str
    annotation: Any
    default: Any = REQUIRED
    meaning: str = ""
    limits: tuple[str, Callable[[Any], bool]] | None = None  # the allowed numbers in words, and whether one is among them


def options_of(factory: Callable) -> dict[str, Option]:
    """The options of a factory or of a settings dataclass, by name, without what the program supplies."""
    if dataclasses.is_dataclass(factory):
        return _fields(factory)
    hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    meanings = _meanings(inspect.getdoc(factory) or "")
    return {
        name: Option(name, hints.get(name, Any), parameter.default, meanings.get(name, ""))
        for name, parameter in inspect.signature(factory).parameters.items()
        if name not in RUNTIME and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    }


def _fields(settings) -> dict[str, Option]:
    hints = typing.get_type_hints(settings)
    found = {}
    for field in dataclasses.fields(settings):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        default = REQUIRED if default is dataclasses.MISSING else default
        found[field.name] = Option(field.name, hints[field.name], default, field.metadata.get("meaning", ""), field.metadata.get("limits"))
    return found


def _meanings(docstring: str) -> dict[str, str]:
    """`name: meaning` lines of the docstring's `Options:` block; a line indented further goes on with the one before."""
    _, _, block = docstring.partition("Options:\n")
    found: dict[str, str] = {}
    name = ""
    for line in block.splitlines():
        start = re.match(r"    (\w+): (.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif line.startswith("      ") and name:
            found[name] += " " + line.strip()
        else:
            name = ""
    return found


def check_options(config: Mapping, factory: Callable, where: str, what: str) -> dict:
    """`config` with every key and type checked against the factory's signature; defaults are not filled in.

    where: the key's prefix as the user types it ("loss"), "" at the top level. what: how to call the owner ("loss 'dice'").
    """
    options = options_of(factory)
    prefix = f"{where}." if where else ""
    for key in config:
        if key in options:
            continue
        if key in RUNTIME and key in inspect.signature(factory).parameters:
            raise ConfigError(f"{prefix}{key} comes from the data and the network and cannot be set; remove it")
        allowed = ", ".join(sorted(options)) or "none"
        raise ConfigError(f"{prefix}{key} is not an option of {what}{nearest(key, options)}; options are {allowed}")
    for name, option in options.items():
        if option.default is REQUIRED and config.get(name) is None and not _allows_none(option.annotation):
            raise ConfigError(f"{prefix}{name} is missing: {what} needs it ({option.meaning or describe(option.annotation)})")
    checked = {key: check_value(value, options[key].annotation, f"{prefix}{key}") for key, value in config.items()}
    for key, value in checked.items():
        words, accepts = options[key].limits or ("", None)
        if accepts is not None and isinstance(value, (int, float)) and not accepts(value):
            raise ConfigError(f"{prefix}{key} is {value}; allowed: {words}")
    return checked


def _allows_none(annotation) -> bool:
    return annotation is Any or annotation is None or type(None) in typing.get_args(annotation)


def check_value(value: Any, annotation: Any, where: str) -> Any:
    """`value` in the annotation's type (an int becomes a float where one is asked for), or a ConfigError that names `where`."""
    accepted, result = _convert(value, annotation)
    if not accepted:
        hint = nearest(value, _words(annotation)) if isinstance(value, str) else ""
        raise ConfigError(f"{where} is {value!r}{hint}; allowed: {describe(annotation)}")
    return result


def _words(annotation: Any) -> list:
    """The values that a Literal allows, also one inside a union."""
    if typing.get_origin(annotation) is Literal:
        return list(typing.get_args(annotation))
    return [word for one in typing.get_args(annotation) for word in _words(one)]


def _convert(value: Any, annotation: Any) -> tuple[bool, Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return True, value
    if annotation is None or annotation is type(None):
        return value is None, None
    if origin in (Union, types.UnionType):
        results = (_convert(value, one) for one in arguments)
        return next((result for result in results if result[0]), (False, None))
    if origin is Literal:
        # True == 1 in Python, but not for somebody who typed `true`.
        return any(value == one and type(value) is type(one) for one in arguments), value
    if annotation is float:
        # Not a number and infinity would pass every later comparison and spoil the run silently.
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        return number, float(value) if number else value
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if annotation in (dict, list):
        return isinstance(value, annotation), value
    if annotation in (str, bool):
        return isinstance(value, annotation), value
    if origin in (list, tuple, Sequence):
        return _convert_sequence(value, origin, arguments)
    if origin in (dict, Mapping):
        return _convert_mapping(value, arguments)
    raise TypeError(f"the checker does not know the annotation {annotation!r}")


def _convert_sequence(value, origin, arguments) -> tuple[bool, Any]:
    if not isinstance(value, (list, tuple)):
        return False, None
    fixed = origin is tuple and Ellipsis not in arguments
    if fixed and len(value) != len(arguments):
        return False, None
    kinds = arguments if fixed else [arguments[0]] * len(value)
    results = [_convert(one, kind) for one, kind in zip(value, kinds, strict=True)]
    made = (tuple if origin is tuple else list)(result for _, result in results)
    return all(accepted for accepted, _ in results), made


def _convert_mapping(value, arguments) -> tuple[bool, Any]:
    if not isinstance(value, Mapping):
        return False, None
    pairs = [(_convert(key, arguments[0]), _convert(one, arguments[1])) for key, one in value.items()]
    return all(key[0] and one[0] for key, one in pairs), {key[1]: one[1] for key, one in pairs}


def describe(annotation: Any) -> str:
    """A type in words that a user understands."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    words = {int: "an integer", float: "a number", str: "a text", bool: "true or false", dict: "a mapping", list: "a list"}
    words |= {type(None): "null", None: "null", Any: "anything"}
    if annotation in words:
        return words[annotation]
    if origin in (Union, types.UnionType):
        return " or ".join(describe(one) for one in arguments)
    if origin is Literal:
        return ", ".join(str(one) for one in arguments)
    if origin is tuple and Ellipsis not in arguments:
        return "[" + ", ".join(describe(one) for one in arguments) + "]"
    if origin in (list, tuple, Sequence):
        return f"a list, each {describe(arguments[0])}"
    if origin in (dict, Mapping):
        return f"a mapping, each value {describe(arguments[1])}"
    return getattr(annotation, "__name__", str(annotation))


class Table:
    """The entries of one kind ("loss"), by name. Installed packages add theirs as entry points of the group `segtrain.<kind>`."""

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
            return plugins[name].load()
        raise ConfigError(f"{self.kind}={name} does not exist{nearest(name, self.names())}; there are {', '.join(self.names())}")

    def options(self, name: str) -> dict[str, Option]:
        return options_of(self.factory(name))

    def check(self, config: Mapping) -> tuple[str, dict]:
        """The entry's name and its checked options, from `{"name": …, option: value}`."""
        if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
            raise ConfigError(f"{self.kind} is {config!r}; it needs a name, one of {', '.join(self.names())}")
        name = config["name"]
        options = {key: value for key, value in config.items() if key != "name"}
        return name, check_options(options, self.factory(name), self.kind, f"{self.kind} {name!r}")

    def build(self, config: Mapping, **runtime):
        """The object that the chosen factory makes from its options and those of `runtime` that it names."""
        name, options = self.check(config)
        return _call(self.factory(name), options, runtime)

    def check_each(self, config: Mapping) -> dict[str, dict]:
        """Of a composite, `{entry: {option: value}}` in order: each entry's checked options. A null entry is left out."""
        checked = {}
        for name, options in (config or {}).items():
            if options is None:
                continue
            if not isinstance(options, Mapping):
                raise ConfigError(f"{self.kind}.{name} is {options!r}; it holds the options of {name!r}, or null to remove it")
            checked[name] = check_options(options, self.factory(name), f"{self.kind}.{name}", f"{self.kind} {name!r}")
        return checked

    def build_each(self, config: Mapping, **runtime) -> list:
        """The objects of a composite, in order."""
        return [_call(self.factory(name), options, runtime) for name, options in self.check_each(config).items()]


def _call(factory: Callable, options: dict, runtime: dict):
    unknown = set(runtime) - RUNTIME
    assert not unknown, f"not a runtime keyword: {unknown}"
    named = inspect.signature(factory).parameters
    return factory(**options, **{key: value for key, value in runtime.items() if key in named})
