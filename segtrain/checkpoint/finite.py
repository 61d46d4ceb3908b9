"""Whether weights and states hold numbers only: no infinity, no not-a-number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from segtrain.errors import DivergedError


@torch.no_grad()
def not_finite(value, where: str = "") -> str | None:
    """The name of the first tensor in nested mappings and lists that holds an infinity or a not-a-number.

    None if none does. One pass over the tensors on their device, and one answer back from it.
    """
    groups: dict[tuple, list[tuple[str, Tensor]]] = {}
    for name, tensor in _tensors(value, where):
        if tensor.is_floating_point() and tensor.numel():
            groups.setdefault((tensor.device, tensor.dtype), []).append((name, tensor))
    for pairs in groups.values():
        largest = torch.stack(torch._foreach_norm([tensor for _, tensor in pairs], torch.inf))
        good = torch.isfinite(largest).tolist()
        if not all(good):
            return pairs[good.index(False)][0]
    return None


def check_finite(weights: Mapping[str, Tensor], state: Mapping, step: int) -> None:
    """DivergedError if a training arrived at weights or a state that no later step could mend."""
    bad = not_finite(weights) or not_finite(state)
    if bad is not None:
        raise DivergedError(
            f"{bad} is not finite after step {step}; lower optimizer.lr or set trainer.clip_norm; the last "
            f"checkpoint is kept"
        )


def _tensors(value, where: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield where, value.detach()
    elif isinstance(value, (Mapping, list, tuple)):
        for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors(one, f"{where}.{key}" if where else str(key))
