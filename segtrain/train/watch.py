"""Monitors of the loop: non-finite losses, and images per second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from torch import Tensor

from segtrain.errors import DivergedError


class Finite:
    """Detects non-finite losses. The sum of the losses since the last log line is non-finite if one of them
    was; it is read when the loop synchronises with the device anyway."""

    def __init__(self, loss_sum: Tensor):
        self._loss_sum = loss_sum
        self._names: list[tuple[int, list[str]]] = []

    def note(self, step: int, names: list[str]) -> None:
        """Records the file names of a step. On a CPU it also reads the loss, which costs nothing there."""
        self._names.append((step, names))
        if self._loss_sum.device.type == "cpu":
            self.read()

    def read(self) -> None:
        """DivergedError if a loss since the last reading was not finite; it names the files of the steps
        since then."""
        names, self._names = self._names, []
        if not math.isfinite(self._loss_sum.item()):
            files = [name for _, one in names for name in one]
            shown = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
            raise DivergedError(
                f"the loss is not finite at step "
                f"{names[0][0]}{'' if len(names) == 1 else f' to {names[-1][0]}'}; images: {shown}; "
                "lower optimizer.lr, set trainer.clip_norm, or look at these images and masks; the last "
                "checkpoint is kept"
            )


class Clock:
    """(images per second, share of the time spent waiting for data) since the last reading, without
    evaluations."""

    def __init__(self):
        self._start, self._waited, self._images = time.perf_counter(), 0.0, 0

    def waiting(self, get: Callable):
        """Calls `get` and counts its time as waiting for data; returns its result."""
        start = time.perf_counter()
        got = get()
        self._waited += time.perf_counter() - start
        return got

    def outside(self, do: Callable):
        """Calls `do` without counting its time as training; returns its result."""
        start = time.perf_counter()
        done = do()
        self._start += time.perf_counter() - start
        return done

    def count(self, images: int) -> None:
        self._images += images

    def read(self) -> tuple[float, float]:
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        result = self._images / elapsed, self._waited / elapsed
        self.__init__()
        return result
