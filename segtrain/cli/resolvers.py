"""Limits of the interpolations ${…} in a config."""

from __future__ import annotations

import os
from collections.abc import Mapping

from segtrain.errors import ConfigError

ENVIRONMENT = ("HOME", "USER", "TMPDIR", "SCRATCH", "SLURM_JOB_ID", "SLURM_TMPDIR")
"""Besides SEGTRAIN_*, the environment variables that a config may read by ${oc.env:NAME}."""


MAX_INTERPOLATIONS = 16
"""How many ${…} a config may hold: a few interpolations of each other can expand a short text beyond the
memory."""


def limit_interpolations(config: Mapping) -> None:
    """ConfigError if the config holds more than MAX_INTERPOLATIONS."""
    count = str(config).count("${")
    if count > MAX_INTERPOLATIONS:
        raise ConfigError(
            f"the config holds {count} interpolations ${{…}}; allowed: at most {MAX_INTERPOLATIONS}"
        )


def restrict_resolvers() -> None:
    """Makes ${oc.env:NAME} read allowed environment variables only."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("oc.env", _environment, replace=True)


def _environment(name: str, *default):
    """The value of ${oc.env:NAME}. ConfigError for a name that is not allowed: a config from elsewhere must
    not read keys and tokens."""
    if name not in ENVIRONMENT and not name.startswith("SEGTRAIN_"):
        raise ConfigError(
            f"${{oc.env:{name}}} cannot be read; allowed: {', '.join(ENVIRONMENT)} and names that begin "
            f"with SEGTRAIN_"
        )
    if name not in os.environ and not default:
        raise ConfigError(
            f"${{oc.env:{name}}}: the environment has no {name}; set it, or give a default: "
            f"${{oc.env:{name},VALUE}}"
        )
    return os.environ.get(name, *default)
