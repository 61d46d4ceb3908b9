"""Options: the parameters of a factory or the fields of a settings dataclass, and one checker for every key
that a user can type.

The signature of a factory is the schema of its options; several factories that share options state them in a
dataclass (`with_options`). Numeric limits are part of the annotation: `lr: Annotated[float, ABOVE_0]`,
`scales: tuple[Annotated[float, ABOVE_0], ...]`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union

from segtrain.errors import ConfigError, nearest, unknown_key

RUNTIME = frozenset(
    {
        "num_classes",  # C of the data set
        "ignore_index",  # the target value without a label
        "facts",  # segtrain.sample.Facts of the data set
        "in_channels",  # K of its images
        "out_channels",  # channels that the task asks of the network
        "target",  # segtrain.sample.Target of the task
        "thresholds",  # of the labels of the task; None: those that fit what is scored best (metrics)
        "task_activation",  # of the logits: softmax or sigmoid (losses)
        "unread_in",  # names of the splits whose unreadable files are left out (loader.on_bad; data check)
        "num_answers",  # values of the decisions that a metric counts: C, or C + 1 with one for no class
        "absent",  # how a metric counts classes that do not occur (evaluate.absent)
        "class_frequency",  # () -> survey.stats.Frequency of the training split, counted when first called
        "class_pixels",  # () -> int64[N, C], pixels of each class in each training sample, likewise
        "fill",  # K values of padded image pixels: the mean of the normalisation
        "network",  # the built network (optimizers)
        "steps",  # optimizer steps of the whole run (schedules)
        "valid_side",  # side in pixels -> the next side from there on that the network takes (views)
    }
)
"""Parameters that the program supplies. A factory receives those that its signature names; a user cannot set
them."""

REQUIRED = inspect.Parameter.empty


class Limits(NamedTuple):
    """The numbers that an option may hold: described in words, and as a test of one number."""

    words: str
    accepts: Callable[[Any], bool]


class Length(NamedTuple):
    """The number of entries that a list may have."""

    least: int
    most: int


def at_least(least: int) -> Limits:
    """Integers from `least`."""
    return Limits(f"an integer from {least}", lambda value: value >= least)


def between(least: float, most: float) -> Limits:
    """Numbers from `least` to `most`, both included."""
    return Limits(f"from {least} to {most}", lambda value: least <= value <= most)


FROM_0 = at_least(0)
FROM_1 = at_least(1)
ODD = Limits("an odd integer from 3", lambda value: value >= 3 and value % 2 == 1)
SEED = Limits("an integer from 0 to 2^63 - 1", lambda value: 0 <= value < 2**63)
ABOVE_0 = Limits("a number above 0", lambda value: value > 0)
NOT_NEGATIVE = Limits("a number from 0", lambda value: value >= 0)
SHARE = Limits("from 0 to below 1", lambda value: 0 <= value < 1)
WITHIN_0_1 = Limits("above 0 and below 1", lambda value: 0 < value < 1)
PROBABILITY = between(0, 1)
SIDE_PX = between(1, 32766)
"""Sides of images that OpenCV can warp."""

IS_PATH = "is a path"
FilePath = Annotated[str, IS_PATH]
"""The path of a file or folder. A resumed run may have another path to the same content."""


@dataclass(frozen=True)
class Option:
    """One option: its type, its default (REQUIRED if there is none) and its meaning for help texts."""

    name: str
    annotation: Any
    default: Any = REQUIRED
    meaning: str = ""


def key(default: Any, meaning: str) -> Any:
    """A field of an options dataclass, with its default and its meaning for help texts."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


def with_options(options_class: type) -> Callable[[Callable], Callable]:
    """Decorator of a factory whose options are the fields of a dataclass, stated there with `key`.

    The decorated function takes one instance of that dataclass before the runtime keywords; callers of the
    factory pass the fields as keywords:

        @with_options(PyramidOptions)
        def pyramid(options: PyramidOptions, out_channels: int): ...

        pyramid(5, rates=(1, 2))  # calls the function with PyramidOptions(rates=(1, 2)) and 5
    """
    names = [field.name for field in dataclasses.fields(options_class)]

    def decorate(build: Callable) -> Callable:
        @functools.wraps(build)
        def factory(*runtime, **keywords):
            chosen = {name: keywords.pop(name) for name in names if name in keywords}
            return build(options_class(**chosen), *runtime, **keywords)

        factory.options_class = options_class
        return factory

    return decorate


def options_of(factory: Callable) -> dict[str, Option]:
    """The options of a factory or of a settings dataclass, by name, without the parameters in RUNTIME."""
    options_class = getattr(factory, "options_class", factory)
    if dataclasses.is_dataclass(options_class):
        return _fields(options_class)
    hints = typing.get_type_hints(
        factory.__init__ if inspect.isclass(factory) else factory, include_extras=True
    )
    meanings = _meanings(inspect.getdoc(factory) or "")
    return {
        name: Option(name, hints.get(name, Any), parameter.default, meanings.get(name, ""))
        for name, parameter in inspect.signature(factory).parameters.items()
        if name not in RUNTIME
        and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    }


def path_options(factory: Callable) -> list[str]:
    """The names of the options that hold the path of a file or folder."""
    return [name for name, option in options_of(factory).items() if _is_path(option.annotation)]


def _is_path(annotation) -> bool:
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        return IS_PATH in inner
    return _is_union(annotation) and any(map(_is_path, inner))


def _fields(settings) -> dict[str, Option]:
    hints = typing.get_type_hints(settings, include_extras=True)
    found = {}
    # Fields of the dataclass itself before inherited ones.
    own = inspect.get_annotations(settings)
    for field in sorted(dataclasses.fields(settings), key=lambda field: field.name not in own):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        default = REQUIRED if default is dataclasses.MISSING else default
        found[field.name] = Option(field.name, hints[field.name], default, field.metadata.get("meaning", ""))
    return found


def _meanings(docstring: str) -> dict[str, str]:
    """`name: meaning` lines of the docstring's `Options:` block; lines with a deeper indent continue the
    previous one."""
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
    """`config` with every key and type checked against the options of the factory; defaults are not filled
    in.

    where: prefix of the keys as typed ("loss"), "" at the top level. what: name of the factory in messages
    ("loss 'dice'").
    """
    options = options_of(factory)
    prefix = f"{where}." if where else ""
    for key in config:
        if key in options:
            continue
        if key in RUNTIME and key in inspect.signature(factory).parameters:
            raise ConfigError(
                f"{prefix}{key} comes from the data and the network and cannot be set; remove it"
            )
        raise unknown_key(f"{prefix}{key}", what, options, nearest(key, options))
    for name, option in options.items():
        if option.default is REQUIRED and config.get(name) is None and not _allows_none(option.annotation):
            raise ConfigError(
                f"{prefix}{name} is missing: {what} needs it "
                f"({option.meaning or describe(option.annotation)})"
            )
    return {
        key: check_value(value, options[key].annotation, f"{prefix}{key}") for key, value in config.items()
    }


def _allows_none(annotation) -> bool:
    annotation = _plain(annotation)
    return (
        annotation is Any
        or annotation is None
        or any(_allows_none(one) for one in typing.get_args(annotation) if _is_union(annotation))
    )


def _is_union(annotation) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)


def _plain(annotation):
    """The annotation without its limits."""
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def check_value(value: Any, annotation: Any, where: str) -> Any:
    """`value` converted to the annotation's type (an int to a float). ConfigError, which names `where`, if it
    is of another type or beyond the limits."""
    accepted, result = _convert(value, annotation)
    if accepted:
        _check_limits(result, annotation, where)
    else:
        hint = nearest(value, _words(annotation)) if isinstance(value, str) else ""
        raise ConfigError(f"{where} is {_shown(value)}{hint}; allowed: {describe(annotation)}")
    return result


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes out no integer beyond some 4300 digits
        return "a number of thousands of digits"


def _check_limits(value: Any, annotation: Any, where: str) -> None:
    """ConfigError if `value`, or a number in it, is beyond the limits of the annotation. `value` has the
    annotation's type."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        _check_limits(value, arguments[0], where)
        for limits in arguments[1:]:
            if isinstance(limits, Length) and not limits.least <= len(value) <= limits.most:
                raise ConfigError(
                    f"{where} is {list(value)}; allowed: {limits.least} to {limits.most} entries"
                )
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if isinstance(limits, Limits) and is_number and not limits.accepts(value):
                raise ConfigError(f"{where} is {value}; allowed: {limits.words}")
    elif origin in (Union, types.UnionType):
        kind = next(one for one in arguments if _convert(value, one)[0])
        _check_limits(value, kind, where)
    elif origin in (list, tuple, Sequence):
        kinds = arguments if origin is tuple and Ellipsis not in arguments else [arguments[0]] * len(value)
        for place, (one, kind) in enumerate(zip(value, kinds, strict=True)):
            _check_limits(one, kind, f"{where}[{place}]")
    elif origin in (dict, Mapping):
        for key, one in value.items():
            _check_limits(one, arguments[1], f"{where}.{key}")


def _words(annotation: Any) -> list:
    """The values of a Literal, also of one inside a union."""
    if typing.get_origin(annotation) is Literal:
        return list(typing.get_args(annotation))
    annotation = _plain(annotation)
    return [word for one in typing.get_args(annotation) for word in _words(one)]


def _convert(value: Any, annotation: Any) -> tuple[bool, Any]:
    annotation = _plain(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return True, value
    if annotation is None or annotation is type(None):
        return value is None, None
    if origin in (Union, types.UnionType):
        results = (_convert(value, one) for one in arguments)
        return next((result for result in results if result[0]), (False, None))
    if origin is Literal:
        # In Python True == 1, but a user who typed `true` did not mean 1.
        return any(value == one and type(value) is type(one) for one in arguments), value
    if annotation is float:
        # NaN and infinity would pass later checks and spoil the run silently.
        number = (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and abs(value) <= sys.float_info.max
        )
        return number, float(value) if number else value
    if annotation is int:
        # Counts and seeds are 64-bit integers in torch and NumPy.
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63, value
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
    """The annotation in words, for error and help texts."""
    if typing.get_origin(annotation) is Annotated:
        plain = describe(typing.get_args(annotation)[0])
        limits = [one.words for one in typing.get_args(annotation)[1:] if isinstance(one, Limits)]
        lengths = [one for one in typing.get_args(annotation)[1:] if isinstance(one, Length)]
        plain += "".join(f" ({one.least} to {one.most} entries)" for one in lengths)
        return " and ".join(one if one.startswith(plain) else f"{plain} {one}" for one in limits) or plain
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    words = {
        int: "an integer",
        float: "a number",
        str: "a text",
        bool: "true or false",
        dict: "a mapping",
        list: "a list",
    }
    words |= {type(None): "null", None: "null", Any: "anything"}
    if annotation in words:
        return words[annotation]
    if origin in (Union, types.UnionType):
        # `typing` keeps one of several equal unions, in whose order the members then come.
        return " or ".join(sorted((describe(one) for one in arguments), key=_place_in_union))
    if origin is Literal:
        return ", ".join(str(one) for one in arguments)
    if origin is tuple and Ellipsis not in arguments:
        return "[" + ", ".join(describe(one) for one in arguments) + "]"
    if origin in (list, tuple, Sequence):
        return f"a list, each {describe(arguments[0])}"
    if origin in (dict, Mapping):
        return f"a mapping, each value {describe(arguments[1])}"
    return getattr(annotation, "__name__", str(annotation))


def _place_in_union(described: str) -> int:
    """Single values first, then null; lists and mappings last, as all that follows `each` reads as one of
    their values."""
    return 1 if described == "null" else 2 * described.startswith(("a list", "a mapping", "["))
