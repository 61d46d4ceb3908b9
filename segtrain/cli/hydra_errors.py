"""Errors of Hydra and OmegaConf as ConfigErrors of one line."""

from __future__ import annotations

from collections.abc import Iterator

from segtrain.cli.overrides import Typed
from segtrain.errors import ConfigError, nearest
from segtrain.run.plain_yaml import first_line


def as_config_error(error: BaseException, typed: list[Typed]) -> ConfigError:
    """The ConfigError for an error of a composition. An error of another kind is raised as it is."""
    for one in _chain(error):
        if isinstance(one, ConfigError):
            return one
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, MissingConfigException):
        return _missing(error)
    if isinstance(error, HydraException):
        return ConfigError(_composition(error, typed))
    if isinstance(error, OmegaConfBaseException):
        key = getattr(error, "full_key", None)
        return ConfigError(f"{key}: {first_line(error)}" if key else first_line(error))
    if isinstance(error, RecursionError):
        return ConfigError("the config refers to itself without end")
    raise error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _missing(error) -> ConfigError:
    path = str(error.missing_cfg_file or "").removesuffix(".yaml")
    group, _, name = path.rpartition("/")
    options = [option for option in error.options or [] if option != "saved"]
    if not group:
        return ConfigError(first_line(error))
    return ConfigError(
        f"{group}={name} does not exist{nearest(name, options)}; there are {', '.join(options) or 'none'}"
    )


def _composition(error: BaseException, typed: list[Typed]) -> str:
    cause = error.__cause__
    message = first_line(error)
    for one in typed:
        if one.line in message:
            reason = f": {first_line(cause)}" if cause is not None else ""
            return f"{one.key}={one.text} does not fit{reason}"
    return message + (f": {first_line(cause)}" if cause is not None else "")
