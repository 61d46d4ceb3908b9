"""Reads untrusted YAML as plain data, with limits on its size and its aliases, and writes plain data as
YAML."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from segtrain.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_NODES = 5_000
"""Values of a YAML with its aliases written out. Composition takes about 0.4 ms for each."""
MAX_DEPTH = 50
MAX_DIGITS = 400
"""Characters of a number: YAML reads 1:1:1… in a time that grows with its square."""
SURROGATE = re.compile(r"\\u[Dd][89A-Fa-f][0-9A-Fa-f]{2}")
"""How `to_yaml` writes a byte of a path that is not UTF-8: Python holds it as a surrogate."""
FORBIDDEN = ("hydra", "_target_", "_args_", "_partial_", "_recursive_", "_convert_")
"""Keys that no YAML of a user may hold at any depth: Hydra gives them meanings that run code."""


def read_text(path: Path) -> str:
    """The text of a YAML file. ConfigError if it is missing, no regular file, above 1 MB or not UTF-8."""
    try:
        if not path.is_file():
            raise ConfigError(f"{path} is not a file")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path} is larger than 1 MB, which no config is")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def read_yaml(path: Path) -> Any:
    """A YAML file as plain data. ConfigError if it is too large or holds a key of FORBIDDEN."""
    node = parse_yaml(read_text(path), path)
    check_plain(node, path)
    return node


def parse_yaml(text: str, path: Path, load: Callable | None = None) -> Any:
    """Parses YAML text with `load` (None: yaml.safe_load); errors name `path`."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    # libyaml refuses surrogates; the loader that makes the values is Python's, which takes them.
    counted = SURROGATE.sub(r"\\uFFFD", text)
    try:
        _check_events(yaml.parse(counted, Loader=loader), path)
        tree = yaml.compose(counted, Loader=loader)
        if tree is not None and _size(tree, {}, path) > MAX_NODES:
            raise _too_many(path)
        return (load or yaml.safe_load)(io.StringIO(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path}{where} is not YAML: {getattr(error, 'problem', None) or first_line(error)}"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply") from error
    except (ValueError, TypeError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not a config: {first_line(error)}") from error


def _check_events(events: Iterable, path: Path) -> None:
    """ConfigError for a YAML of too many values or too deep, before the rest of it is parsed."""
    import yaml

    count = depth = 0
    for event in events:
        count += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if count > MAX_NODES:
            raise _too_many(path)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{path} is nested more than {MAX_DEPTH} deep, which no config is")


def _too_many(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} holds more than {MAX_NODES} values with its aliases written out, which no config does"
    )


def _size(node, seen: dict[int, int], path: Path) -> int:
    """Number of values with aliases written out. ConfigError for a number that is too long."""
    import yaml

    if isinstance(node, yaml.ScalarNode):
        if node.tag.endswith((":int", ":float")) and len(node.value) > MAX_DIGITS:
            raise ConfigError(
                f"{path} line {node.start_mark.line + 1} holds a number of {len(node.value)} characters; "
                f"allowed: at most {MAX_DIGITS}"
            )
        return 1
    if id(node) not in seen:
        seen[id(node)] = MAX_NODES + 1  # what an alias inside its own anchor would be: endless
        children = (
            [part for pair in node.value for part in pair]
            if isinstance(node, yaml.MappingNode)
            else node.value
        )
        seen[id(node)] = 1 + sum(_size(child, seen, path) for child in children)
    return seen[id(node)]


def check_plain(node: Any, path: Path | str, forbidden: tuple[str, ...] = FORBIDDEN) -> None:
    """ConfigError if a key of `forbidden` stands anywhere in the YAML."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            # A key may hold dots, which Hydra takes apart.
            if set(str(key).split(".")) & set(forbidden):
                raise ConfigError(
                    f"{path} holds the key {key!r}; a YAML names entries of segtrain's tables and their "
                    f"options only"
                )
            check_plain(value, path, forbidden)
    elif isinstance(node, list):
        for value in node:
            check_plain(value, path, forbidden)


def first_line(error: BaseException | None) -> str:
    """The first line of an error's message, with the second one if the first ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def to_yaml(config: Mapping) -> str:
    """Plain data as YAML, in the order it has."""
    import yaml

    return yaml.safe_dump(_listed(config), sort_keys=False, allow_unicode=True, width=1000)


def _listed(value: Any) -> Any:
    """Tuples as lists: plain YAML has no tuples."""
    if isinstance(value, Mapping):
        return {key: _listed(one) for key, one in value.items()}
    return [_listed(one) for one in value] if isinstance(value, (list, tuple)) else value
