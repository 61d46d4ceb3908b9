"""What a run reports: a progress bar, lines on the terminal, metrics.jsonl and TensorBoard, behind one
object."""

from __future__ import annotations

import datetime
import json
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from segtrain.errors import printable
from segtrain.report.services import Service
from segtrain.run.storage import append_line, cut_lines


class Events:
    """The sinks of one run. A sink that the system refuses to write is a CheckpointError, whichever it is.

    folder: the run's; None: the terminal only. first_step: the step that the run starts or resumes from;
    lines of later steps are dropped from metrics.jsonl, and so is the evaluation of that very step if it is
    still due: a run can end between the evaluation's line and the checkpoint that says it is done.
    service: an experiment tracker that gets what TensorBoard gets.
    """

    def __init__(
        self,
        folder: Path | None,
        first_step: int,
        steps: int,
        evaluation_due: bool = False,
        service: Service | None = None,
    ):
        self._file = folder / "metrics.jsonl" if folder else None
        self._board = None
        if folder:
            from segtrain.report.tensorboard import Board  # TensorBoard's modules take a moment to import

            cut_lines(self._file, first_step, "val/" if evaluation_due else None)
            self._board = Board(folder, purge_step=first_step + 1)
        self._sinks = [sink for sink in (self._board, service) if sink is not None]
        self._service = service
        self._first_step, self._steps, self._start = first_step, steps, time.monotonic()
        self._bar = tqdm(
            total=steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
            disable=None,
            file=sys.stderr,
        )
        # Where the bar is not seen, or stdout goes elsewhere than the bar, each log entry is a line.
        self._says_log = self._bar.disable or not sys.stdout.isatty()

    def say(self, text: str) -> None:
        """One line on stdout, above the bar."""
        self._bar.write(printable(text), file=sys.stdout)
        sys.stdout.flush()

    def table(self, lines: list[str]) -> None:
        for line in lines:
            self.say(line)

    def progress(self, steps: int, numbers: dict[str, str] | None = None) -> None:
        """Moves the bar on by `steps`; numbers stand behind it until others come."""
        if numbers:
            self._bar.set_postfix(numbers, refresh=False)
        self._bar.update(steps)

    def log(self, step: int, numbers: dict) -> None:
        """One line of metrics.jsonl; the plain numbers of it also to TensorBoard and the service. The
        training loss is a line of the terminal too, where no bar shows it."""
        if self._file:
            append_line(self._file, json.dumps({"step": step, **numbers}))
        plain = {name: value for name, value in numbers.items() if isinstance(value, (int, float))}
        for sink in self._sinks:
            sink.scalars(step, plain)
        if self._says_log and "train/loss" in numbers:
            self.say(
                f"step {step} of {self._steps}: loss {numbers['train/loss']:.4f}, "
                f"rate {numbers['train/rate']:.2e}, {numbers['train/images_per_s']:.1f} images/s, "
                f"ETA {self._remaining(step)}"
            )

    def _remaining(self, step: int) -> datetime.timedelta:
        """Time until the last step at the mean pace of this call, evaluations included."""
        per_step = (time.monotonic() - self._start) / max(step - self._first_step, 1)
        return datetime.timedelta(seconds=round(per_step * (self._steps - step)))

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """image: H×W×3 uint8."""
        for sink in self._sinks:
            sink.picture(step, name, image)

    def close(self) -> None:
        self._bar.close()
        if self._service is not None:
            self._service.close()
