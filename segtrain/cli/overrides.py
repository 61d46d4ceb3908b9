"""Parses the overrides (KEY=VALUE) of a command line, checks the first part of each key, and rewrites them
for Hydra."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from segtrain.cli.catalogue import Keys
from segtrain.errors import ConfigError, nearest, unknown_key

HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir")
"""Keys of Hydra's own node that a user may set: the place of the run folder. segtrain reads them itself."""

HYDRA_CHOICES = {"hydra/launcher": ("basic",), "hydra/sweeper": ("basic",)}

_TOKEN = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=]*)(?:=(?P<text>.*))?", re.DOTALL)
_KEY = re.compile(r"[A-Za-z_][\w-]*(?:[./][\w-]+)*", re.ASCII)


@dataclass(frozen=True)
class Typed:
    """One override.

    text: the value as typed. value: the parsed value, None for a sweep. line: the override in Hydra's syntax.
    """

    key: str
    text: str
    value: Any
    line: str
    sweep: bool = False


def parse_overrides(
    tokens: Iterable[str], keys: Keys, multirun: bool = False
) -> tuple[list[Typed], dict[str, str]]:
    """The overrides (the last one of each key) and the values of HYDRA_KEYS.

    ConfigError for a token that is not KEY=VALUE, and for a key whose first word does not exist.
    """
    typed: dict[str, Typed] = {}
    hydra_values: dict[str, str] = {}
    for token in tokens:
        sign, key, text = _split(token, keys)
        if key.partition(".")[0].partition("/")[0] == "hydra":
            hydra_values.update(_hydra_value(key, text))
            continue
        _check_first_word(key, keys)
        key = keys.whole(key)
        if sign == "~":
            text = _removal(key, text, keys)
        typed.pop(key, None)  # the last override of a key counts, at its own position
        one = _read(key, text, keys, multirun)
        if one.line:
            typed[key] = one
    return list(typed.values()), hydra_values


def _split(token: str, keys: Keys) -> tuple[str, str, str]:
    parts = _TOKEN.fullmatch(token)
    sign, key, text = parts["sign"] or "", parts["key"].strip(), parts["text"]
    if key.startswith("-"):
        bare = key.lstrip("-")
        raise ConfigError(
            f"{token} is not an option; keys are written without dashes, such as {bare}={text or 'VALUE'}"
        )
    if text is None and sign != "~":
        raise ConfigError(f"{token} is not KEY=VALUE{_entry_hint(key, keys)}")
    if not _KEY.fullmatch(key):
        raise ConfigError(
            f"{key or token} cannot be a key; keys are words joined by dots, such as trainer.steps=100"
        )
    return sign, key, text if text is not None else ""


def _entry_hint(word: str, keys: Keys) -> str:
    """What to type in place of `word`, which is not KEY=VALUE."""
    for group in keys.groups:
        if word in keys.entries(group):
            return f" (did you mean '{group}={word}'?)"
    return (
        f"; write {word}=VALUE"
        if keys.known(word)
        else "; a key and its value are joined by '=', without spaces"
    )


def _hydra_value(key: str, text: str) -> dict[str, str]:
    if key in HYDRA_CHOICES:
        if text not in HYDRA_CHOICES[key]:
            raise ConfigError(f"{key}={text} is not available; there is {', '.join(HYDRA_CHOICES[key])}")
        return {}
    if key not in HYDRA_KEYS:
        raise ConfigError(
            f"{key} cannot be set; of Hydra's own keys only {' and '.join(HYDRA_KEYS)} are read"
        )
    if not text or ".." in re.split(r"[/\\]", text) or "${" in text:
        raise ConfigError(f"{key} is {text!r}; allowed: the path of a folder without '..' and '${{'")
    return {key: os.path.expanduser(text)}


def _check_first_word(key: str, keys: Keys) -> None:
    first, _, rest = key.partition(".")
    if "/" in key:
        raise ConfigError(
            f"{key} cannot be a key; choices are typed as {key.replace('/', '=', 1)}, options with dots"
        )
    if not keys.known(first):
        error = unknown_key(key, f"segtrain {keys.command}", keys.first_words(), keys.nearest(key))
        raise ConfigError(f"{error}; `segtrain config {keys.command}` lists all keys")
    if rest == "name" and first in keys.groups:
        raise ConfigError(f"{key} cannot be set by itself; choose with {first}=NAME")


def _removal(key: str, text: str, keys: Keys) -> str:
    """The value null, for `~GROUP.ENTRY` of a composite. ConfigError for any other removal."""
    group, _, entry = key.partition(".")
    if text or group not in keys.composites or not entry or "." in entry:
        raise ConfigError(
            f"~{key} removes nothing; only entries of {' and '.join(keys.composites)} can be "
            f"removed, such as ~tta.flip"
        )
    return "null"


def _read(key: str, text: str, keys: Keys, multirun: bool) -> Typed:
    override, written = _parsed(f"{key}={text}"), text
    if (override is None or "~" in text) and (multirun or _takes_list(key, keys)):
        written = ",".join(map(_element, _elements(text)))
        override = _parsed(f"{key}={written}")
    if override is None:
        return _text(key, text, keys)
    if override.is_sweep_override():
        if multirun:
            return Typed(key, text, None, f"{key}={written}", sweep=True)
        return _several(key, text, written, override, keys)
    value = override.value()
    if key in keys.choices and value is None:
        return _no_choice(key, keys)
    kinds = keys.kinds(key)
    if _should_be_text(value, kinds) or (isinstance(value, str) and value.startswith("~")):
        return _text(key, text if not isinstance(value, str) else value, keys)
    return Typed(key, text, value, _line(key, written, keys))


def _takes_list(key: str, keys: Keys) -> bool:
    """Whether the key may hold a list, as far as the catalogue knows the key."""
    kinds = keys.kinds(key)
    return key in keys.composites or (key not in keys.choices and (kinds is None or "list" in kinds))


def _elements(text: str) -> list[str]:
    """`text` split at its commas outside of brackets and quotes."""
    found, depth, quote = [""], 0, ""
    for before, character in zip(" " + text, text, strict=False):
        if quote:
            quote = "" if character == quote and before != "\\" else quote
        elif character in "'\"" and not found[-1].strip(" ["):
            quote = character
        elif character in "[({":
            depth += 1
        elif character in "])}":
            depth -= 1
        elif character == "," and depth == 0:
            found.append("")
            continue
        found[-1] += character
    return found


def _element(text: str) -> str:
    """An element of a list in Hydra's syntax: quoted if necessary, with `~` expanded."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return f"[{','.join(map(_element, _elements(text[1:-1])))}]"
    override = _parsed(f"element={text}")
    value = text if override is None else None if override.is_sweep_override() else override.value()
    if override is None or (isinstance(value, str) and value.startswith("~")):
        return quoted(os.path.expanduser(value) if value.startswith("~") else value)
    return text


def _parsed(line: str):
    """Hydra's parsed override; None if Hydra's grammar does not accept the line."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(line)
    except (HydraException, ValueError):  # Python reads no number of more than 4300 digits
        return None


def _several(key: str, text: str, written: str, override, keys: Keys) -> Typed:
    """`key=a,b` without --multirun: a list, or a ConfigError. written: the value in Hydra's syntax."""
    from hydra.core.override_parser.types import ValueType

    if override.value_type is not ValueType.SIMPLE_CHOICE_SWEEP:
        raise ConfigError(f"{key}={text} is a sweep over several runs; add --multirun")
    if _takes_list(key, keys):
        inner = _parsed(f"{key}=[{written}]")
        return Typed(key, text, inner.value(), _line(key, f"[{written}]", keys))
    hint = "" if key in keys.choices else f", or quote a text with a comma: '{key}=\"{text}\"'"
    raise ConfigError(f"{key}={text} gives several values to one key; add --multirun for one run each{hint}")


def _no_choice(key: str, keys: Keys) -> Typed:
    """`key=null` of a group."""
    if key in keys.composites:
        return Typed(key, "none", "none", f"{key}=none")
    if key == "experiment":
        return Typed(key, "null", None, "")
    raise ConfigError(
        f"{key}=null is not possible: every run has one; choose of {', '.join(keys.entries(key))}"
    )


def _should_be_text(value: Any, kinds: set[str] | None) -> bool:
    """Whether a key that takes strings got a value that looks like a number or boolean: name=2024,
    checkpoint=1000."""
    if kinds is None or "str" not in kinds or not isinstance(value, (bool, int, float)):
        return False
    return type(value).__name__ not in kinds and not (isinstance(value, int) and "float" in kinds)


def _text(key: str, text: str, keys: Keys) -> Typed:
    """A string value, with a leading `~` expanded to the home folder."""
    text = os.path.expanduser(text) if text.startswith("~") else text
    return Typed(key, text, text, _line(key, quoted(text), keys))


def quoted(text: str) -> str:
    """A string quoted for Hydra's syntax."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text=text, quote=Quote.single).with_quotes()


def _line(key: str, value: str, keys: Keys) -> str:
    """The override in Hydra's syntax. Options are added with `++`, whether or not Hydra knows them: the check
    after composition refuses those that do not exist."""
    return f"{key}={value}" if key in keys.choices else f"++{key}={value}"


def check_choice(typed: Typed, options: Callable[[str], list[str]]) -> None:
    """ConfigError if a choice (model=unett, tta=[flip,x]) names an entry that does not exist."""
    for name in typed.value if isinstance(typed.value, list) else [typed.value]:
        there = [option for option in options(typed.key) if option != "saved"]
        if name is not None and (not isinstance(name, str) or name not in there):
            raise ConfigError(
                f"{typed.key}={name} does not exist{nearest(name, there)}; there are "
                f"{', '.join(there) or 'none'}"
            )
