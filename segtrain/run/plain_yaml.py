"""Plain data from YAML that others wrote, and back: bounded in size and in the growth of its aliases, never
more than data."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segtrain.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_NODES = 100_000
FORBIDDEN = ("hydra", "_target_", "_args_", "_partial_", "_recursive_", "_convert_")
"""Keys that no YAML of a user may hold at any depth: Hydra gives them meanings that run code."""


def read_text(path: Path) -> str:
    """The text of a YAML of at most 1 MB. ConfigError if it is not there, not a regular file, too large or
    not UTF-8."""
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
    """A YAML as plain data, checked in size, in the growth of its aliases and for keys that Hydra would act
    on."""
    node = parse_yaml(read_text(path), path)
    check_plain(node, path)
    return node


def parse_yaml(text: str, path: Path, load: Callable | None = None) -> Any:
    """What `load` makes of a YAML text (None: yaml.safe_load); `path` is what errors call it."""
    import yaml

    try:
        tree = yaml.compose(io.StringIO(text), Loader=yaml.SafeLoader)
        if tree is not None and _size(tree, {}) > MAX_NODES:
            raise ConfigError(f"{path} grows to more than {MAX_NODES} values by its aliases")
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


def _size(node, seen: dict[int, int]) -> int:
    """How many values a YAML node is once its aliases are written out."""
    import yaml

    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in seen:
        seen[id(node)] = MAX_NODES + 1  # what an alias inside its own anchor would be: endless
        children = (
            [part for pair in node.value for part in pair]
            if isinstance(node, yaml.MappingNode)
            else node.value
        )
        seen[id(node)] = 1 + sum(_size(child, seen) for child in children)
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
    """The first line of a message that may have many, with the second where the first only announces it."""
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
