"""Modules that import torch, which takes seconds, imported when their functions are called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

from segtrain.commands import COMMANDS
from segtrain.run.stop import Stop


def command(name: str) -> Callable:
    """The function of a command, such as `segtrain.commands.train.train`."""
    row = COMMANDS[name]
    module, _, function = (row.function or f"segtrain.commands.{row.file_name}:{row.file_name}").partition(
        ":"
    )
    return getattr(importlib.import_module(module), function)


def check(name: str, config: Mapping) -> dict:
    """The composed config of a command with the options of its groups checked and every default filled in.
    Its sections have been checked before. Imports torch."""
    return importlib.import_module("segtrain.build").check_groups(name, config)


def has_checkpoint(folder: Path) -> bool:
    """Whether the folder holds a checkpoint to resume from. Imports torch."""
    return importlib.import_module("segtrain.checkpoint").has_checkpoint(folder)


def import_torch(stop: Stop) -> None:
    """Imports all modules of a run. Signals are handled between imports only: an interrupted import of torch
    leaves a partly initialised module, on which later clean-up code would crash."""
    for module in ("torch", "segtrain.commands.train"):
        stop.raise_if_requested()
        importlib.import_module(module)
    stop.raise_if_requested()
