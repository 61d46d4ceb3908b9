"""The config that a command line asks for, composed over the saved config of the run that it names."""

from __future__ import annotations

from segtrain.cli.catalogue import Keys
from segtrain.cli.compose import Composer
from segtrain.cli.overrides import parse_overrides
from segtrain.commands import COMMANDS, Command
from segtrain.errors import ConfigError
from segtrain.run.existing import existing_run
from segtrain.run.saved import check_overrides_of_saved, saved_config


def composed(command: str, words: list[str], config_dir: str | None) -> tuple[dict, dict[str, str]]:
    """The composed config of the overrides, and the values typed for Hydra's own keys (hydra.run.dir …)."""
    composer, typed, hydra_keys = composition(command, words, config_dir)
    with composer.ready():
        return composer.compose(typed), hydra_keys


def composition(command: str, words: list[str], config_dir: str | None):
    """The Composer of a command, the parsed overrides, and the values typed for Hydra's own keys. If the
    overrides name a run, its saved config is what the Composer starts from."""
    typed, hydra_keys = parse_overrides(words, Keys(command))
    row = COMMANDS[command]
    named = _named_run(row, typed)
    saved = None
    if named is not None:
        saved = saved_config(existing_run(named, row.reads))
        if row.needs_run:
            check_overrides_of_saved(typed, saved, named)
    return Composer(command, config_dir, saved), typed, hydra_keys


def _named_run(row: Command, typed: list) -> str | None:
    """The folder of the run whose saved config the command starts from, as typed; None if there is none and
    the command needs none."""
    named = next((one.value for one in typed if one.key == row.reads), None)
    if isinstance(named, list):
        named = next(iter(named), None)
    if row.needs_run and not isinstance(named, str):
        example = "runs=[FOLDER,FOLDER]" if row.reads == "runs" else f"{row.reads}=FOLDER"
        raise ConfigError(
            f"{row.reads} is missing: segtrain {row.name} needs the folder of a run; add {example}"
        )
    return named if isinstance(named, str) and (row.reads, named) != ("resume", "auto") else None
