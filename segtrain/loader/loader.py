"""Training batches and evaluation batches of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segtrain.errors import ConfigError
from segtrain.loader.batches import Batches
from segtrain.loader.reader import EvaluationReader, Reader, TrainingPlan
from segtrain.sample import IGNORE
from segtrain.settings import Loader


def training_batches(
    split,
    ops: Sequence[Callable],
    settings: Loader,
    seed: int,
    start: int = 0,
    interrupt: Callable[[], None] = lambda: None,
) -> Batches:
    """Endless batches from position `start` on. `ops`: augmentation operations, in order. interrupt: see
    `Batches`."""
    check_settings(settings)
    reader = Reader(split, tuple(ops), seed, settings.on_bad == "skip", settings.cache == "memory")
    plan = TrainingPlan(start, settings.batch_size)
    return Batches(reader, plan, settings.workers, "loader", interrupt)


def evaluation_batches(
    split,
    batch_size: int,
    workers: int,
    ignore_index: int = IGNORE,
    interrupt: Callable[[], None] = lambda: None,
) -> Batches:
    """Every sample once, unaugmented, in batches of one image size whose order the data alone decides.

    The last batch of each size is filled up with copies that have no label, so all batches of a size have one
    shape.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index in range(len(split)):
        groups.setdefault(split.size(index), []).append(index)
    plan, filled_to = [], {}
    for group in groups.values():
        for first in range(0, len(group), batch_size):
            plan.append(group[first : first + batch_size])
            # A size of which there are only a few images needs no more places than that.
            filled_to[group[first]] = min(batch_size, len(group))
    reader = EvaluationReader(split, filled_to, ignore_index)
    return Batches(reader, plan, min(workers, len(plan)), "evaluate", interrupt)


def check_settings(settings: Loader) -> None:
    """ConfigError for numbers that no loader can have."""
    if settings.batch_size < 1:
        raise ConfigError(f"loader.batch_size is {settings.batch_size}; allowed: an integer from 1")
    if settings.workers < 0:
        raise ConfigError(
            f"loader.workers is {settings.workers}; allowed: 0 (read in the main process) or more"
        )
