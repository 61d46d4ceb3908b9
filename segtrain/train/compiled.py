"""torch.compile for the training step: fewer passes over memory on a GPU, after minutes of compiling."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from segtrain.errors import ConfigError, nearest


def compiled(model: nn.Module, backend: str) -> nn.Module:
    """`model` compiled by `backend` of torch.compile; it shares the tensors of `model`, whose names and hooks
    are unchanged."""
    there = torch.compiler.list_backends(exclude_tags=None)
    if backend not in there:
        usual = ", ".join(torch.compiler.list_backends())
        raise ConfigError(
            f"trainer.compile={backend} does not exist{nearest(backend, there)}; there are {usual}, "
            f"aot_eager, null"
        )
    # Batches have one shape. Graphs for any shape would be asked for as soon as an earlier run of this
    # process had another.
    torch.compiler.reset()
    return torch.compile(model, backend=backend, dynamic=False)


@contextlib.contextmanager
def compile_errors(backend: str | None) -> Iterator[None]:
    """Turns a failure of torch.compile inside the block, which compiles when it first runs, into a
    ConfigError."""
    try:
        yield
    except RuntimeError as error:
        # torch._dynamo takes seconds to import; where nothing is compiled it is never touched.
        if backend is None or not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise
        # "backend='inductor' raised:", and what.
        reason = (
            " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])
            or type(error).__name__
        )
        raise ConfigError(
            f"trainer.compile={backend} cannot compile this network ({reason:.300}); use trainer.compile=null"
        ) from error
