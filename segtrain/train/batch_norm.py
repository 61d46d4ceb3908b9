"""Recomputes the batch-norm statistics of the network that is evaluated and saved."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from segtrain import ranks
from segtrain.errors import Interrupted
from segtrain.model.parts.norm import recompute_statistics, statistics_of
from segtrain.predictor.device import autocast
from segtrain.train.state import RunState
from segtrain.train.step import Learning, micro_batches


def share_statistics(state: RunState) -> None:
    """Makes the running statistics of batch-norm their mean over all ranks, so that all have one network.
    Those of synchronised batch-norm are equal already."""
    if ranks.world_size() > 1:
        for network in (state.model, *state.networks.values()):
            if not any(isinstance(module, nn.SyncBatchNorm) for module in network.modules()):
                ranks.all_reduce_mean(list(statistics_of(network).values()))


@contextlib.contextmanager
def recomputed_batch_norm(
    state: RunState, learning: Learning, draw: Callable, count: int, stop
) -> Iterator[None]:
    """A context in which batch-norm of the served network has statistics averaged over the first `count`
    batches of `draw()`.

    On exit the network has its running statistics again. A checkpoint saved within the context holds both, so
    an evaluation changes nothing in the training that follows.
    """
    own = {name: buffer.clone() for name, buffer in statistics_of(state.served).items()} if count else {}
    if not own:
        yield
        return

    def inputs() -> Iterator[Tensor]:
        with contextlib.suppress(Interrupted), draw() as batches:
            for batch in itertools.islice(batches, count):
                if stop.requested is not None:
                    return
                for images, _ in micro_batches(batch, learning.settings, learning.device):
                    yield learning.normalise(images)

    try:
        with autocast(learning.device, learning.settings.amp):
            recompute_statistics(state.served, inputs())
            ranks.all_reduce_mean(list(statistics_of(state.served).values()))
        if stop.requested is None:
            state.statistics = own
        else:  # interrupted: averages over too few batches are not used
            state.served.load_state_dict(own, strict=False)
        yield
    finally:
        state.served.load_state_dict(own, strict=False)
        state.statistics = None
