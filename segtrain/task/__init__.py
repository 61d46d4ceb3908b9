"""Tasks: what the output of a network means."""

from collections.abc import Mapping

from segtrain.registry import Table
from segtrain.sample import Facts
from segtrain.task.binary import binary
from segtrain.task.multilabel import multilabel
from segtrain.task.semantic import semantic
from segtrain.task.task import Task
from segtrain.text import notice
from segtrain.thresholds import HALF

TASK = Table("task", {"binary": binary, "multilabel": multilabel, "semantic": semantic})


def task_of(description: Mapping) -> Task:
    """The task of a checkpoint, with the thresholds that were saved with it. description: of the
    checkpoint."""
    task, thresholds = TASK.build(description["config"]["task"]), description.get("thresholds")
    if task.fits_thresholds and thresholds is None:
        notice(
            f"the checkpoint of step {description['step']} was saved before an evaluation had fitted "
            f"thresholds; labels hold from a probability of {HALF} on"
        )
        thresholds = [HALF] * task.out_channels(Facts.from_plain(description["facts"]))
    return task if thresholds is None or task.with_thresholds is None else task.with_thresholds(thresholds)
