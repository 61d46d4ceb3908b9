"""Training batches and evaluation batches of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segtrain import ranks
from segtrain.augmentation import needs_instances
from segtrain.data.joined import without_instances
from segtrain.loader.batches import Batches
from segtrain.loader.decoding import decoded
from segtrain.loader.draws import UNIFORM, Draws
from segtrain.loader.order import EndlessBatchSampler
from segtrain.loader.reader import EvaluationReader, Reader
from segtrain.loader.usable import evaluation_headers, training_dtype
from segtrain.sample import IGNORE
from segtrain.settings import Loader


def split_to_read(
    split, ops: Sequence[Callable], settings: Loader, interrupt: Callable[[], None] = lambda: None
):
    """The split that a training reads: without instances if no operation needs them, and with
    loader.cache=disk with decoded samples, see `decoding.decoded`."""
    if not needs_instances(ops):
        split = without_instances(split)
    return decoded(split, settings, interrupt)


def training_batches(
    split,
    ops: Sequence[Callable],
    settings: Loader,
    seed: int,
    start: int = 0,
    interrupt: Callable[[], None] = lambda: None,
    draws: Draws = UNIFORM,
) -> Batches:
    """An endless iterator over training batches from position `start` on; with several ranks, over this
    rank's part of each. ops: augmentation operations, in order. interrupt: see `Batches`. draws: how often
    each sample is drawn. split: also one of `split_to_read`."""
    split = split_to_read(split, ops, settings, interrupt)
    reader = Reader(
        split, tuple(ops), seed, settings.skip_bad, settings.cache == "memory", training_dtype(split), draws
    )
    positions = EndlessBatchSampler(start, settings.batch_size, ranks.part_of(settings.batch_size))
    return Batches(reader, positions, settings.workers, "loader", interrupt)


def evaluation_batches(
    split,
    batch_size: int,
    workers: int,
    ignore_index: int = IGNORE,
    interrupt: Callable[[], None] = lambda: None,
) -> Batches:
    """Every sample once, without augmentation, in batches of one image size; their order depends on the
    data alone. With several ranks, each has every W-th batch. interrupt: see `Batches`.

    The last batch of each size is padded with copies whose pixels are all ignored, so that all batches of a
    size have one shape.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, header in enumerate(evaluation_headers(split)):
        groups.setdefault((header.height, header.width), []).append(index)
    batches, filled_to = [], {}
    for group in groups.values():
        for first in range(0, len(group), batch_size):
            batches.append(group[first : first + batch_size])
            # A size with fewer images than batch_size gets a smaller batch.
            filled_to[group[first]] = min(batch_size, len(group))
    plan = batches[ranks.rank() :: ranks.world_size()]
    reader = EvaluationReader(split, filled_to, ignore_index)
    return Batches(reader, plan, min(workers, len(plan)), "evaluate", interrupt)


def check_evaluation(split, training_split) -> None:
    """DataError if headers show that a sample of `split` cannot be evaluated: unreadable, image and mask
    of different sizes, or another pixel type than the training images."""
    evaluation_headers(split, training_dtype(training_split))
