"""`--cfg job`: the config that a command line would run."""

from __future__ import annotations

from segtrain.cli import stages
from segtrain.cli.composition import composed
from segtrain.cli.lazy import check
from segtrain.run.plain_yaml import to_yaml


def print_config(command: str, words: list[str], config_dir: str | None) -> None:
    """Prints the composed and checked config as YAML. ConfigError if it, or one of its stages, is wrong."""
    config, _ = composed(command, words, config_dir)
    checked = check(command, config)
    if checked.get("stages"):
        stages.check(stages.plan(checked["stages"], words, config_dir))
    print(to_yaml(checked), end="")
