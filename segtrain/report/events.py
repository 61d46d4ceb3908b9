"""What a run tells: a progress bar, lines on the terminal, metrics.jsonl and TensorBoard, behind one
object."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from segtrain.errors import printable
from segtrain.run.storage import append_line, cut_lines


class Events:
    """folder None: the terminal only. first_step: the step that the run starts or goes on from; later lines
    are cut off, and so
    is the evaluation of that step if it is still due: a run can end between its line and the checkpoint that
    says it is done."""

    def __init__(self, folder: Path | None, first_step: int, steps: int, evaluation_due: bool = False):
        self._file = folder / "metrics.jsonl" if folder else None
        self._board = None
        if folder:
            from torch.utils.tensorboard import SummaryWriter

            cut_lines(self._file, first_step, "val/" if evaluation_due else None)
            self._board = SummaryWriter(str(folder), purge_step=first_step + 1)
        self._bar = tqdm(
            total=steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
            disable=None,
            file=sys.stderr,
        )

    def say(self, text: str) -> None:
        """One line on stdout, above the bar."""
        self._bar.write(printable(text), file=sys.stdout)
        sys.stdout.flush()

    def table(self, lines: list[str]) -> None:
        for line in lines:
            self.say(line)

    def progress(self, steps: int, numbers: dict[str, str] | None = None) -> None:
        """Moves the bar on by `steps`."""
        if numbers:
            self._bar.set_postfix(numbers, refresh=False)
        self._bar.update(steps)

    def log(self, step: int, numbers: dict) -> None:
        """One line of metrics.jsonl; the plain numbers of it also to TensorBoard."""
        if self._file:
            append_line(self._file, json.dumps({"step": step, **numbers}))
        if self._board:
            for name, value in numbers.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """image: H×W×3 uint8."""
        if self._board:
            self._board.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        if self._board:
            self._board.flush()

    def close(self) -> None:
        self._bar.close()
        if self._board:
            self._board.close()
