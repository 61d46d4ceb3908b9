"""torch.compile for the training step: fewer passes over memory on a GPU, after minutes of compilation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from segtrain.errors import ConfigError, nearest


def compiled(model: nn.Module, backend: str) -> nn.Module:
    """`model` compiled by `backend` of torch.compile; it shares the tensors of `model`, whose names and hooks
    are unchanged."""
    backends = torch.compiler.list_backends(exclude_tags=None)
    if backend not in backends:
        usual = ", ".join(torch.compiler.list_backends())
        raise ConfigError(
            f"trainer.compile={backend} does not exist{nearest(backend, backends)}; there are {usual}, "
            f"aot_eager, null"
        )
    # All batches have one shape. Without the reset, torch would compile for any shape if an earlier run of
    # this process had batches of another one.
    torch.compiler.reset()
    return torch.compile(model, backend=backend, dynamic=False)


@contextlib.contextmanager
def compile_errors(backend: str | None) -> Iterator[None]:
    """A context that turns a failure of torch.compile, which compiles at the first call, into a
    ConfigError."""
    try:
        yield
    except RuntimeError as error:
        # torch._dynamo takes seconds to import, so it is not touched if nothing is compiled.
        if backend is None or not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise
        # The first two lines: "backend='inductor' raised:" and the error itself.
        reason = (
            " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])
            or type(error).__name__
        )
        raise ConfigError(
            f"trainer.compile={backend} cannot compile this network ({reason:.300}); use trainer.compile=null"
        ) from error
