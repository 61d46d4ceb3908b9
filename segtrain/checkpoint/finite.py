"""Whether all numbers of weights and training state are finite."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from segtrain.errors import DivergedError
from segtrain.tensors import not_finite


def check_finite(weights: Mapping[str, Tensor], state: Mapping, step: int) -> None:
    """DivergedError if the weights or the training state hold an infinity or a NaN."""
    bad = not_finite(weights) or not_finite(state)
    if bad is not None:
        raise DivergedError(
            f"{bad} is not finite after step {step}; lower optimizer.lr or set trainer.clip_norm; the last "
            f"checkpoint is kept"
        )
