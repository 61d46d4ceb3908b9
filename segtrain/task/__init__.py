"""Tasks: what the output of a network means."""

from segtrain.registry import Table
from segtrain.task.semantic import semantic

TASK = Table("task", {"semantic": semantic})
