"""An event file for TensorBoard, written in the calling thread."""

from __future__ import annotations

import io
import itertools
import os
import re
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image as image_summary
from torch.utils.tensorboard.summary import scalar as scalar_summary

from segtrain.run.storage import append_bytes

_numbers = itertools.count()


def _later_than_others(folder: Path) -> int:
    """The time in seconds for the name of a new event file, later than that in the name of any other.

    TensorBoard reads event files in the order of their names, and drops all that follows in that order and
    belongs to earlier steps. Where a run is resumed, the clock may be behind that of its start.
    """
    names = [re.search(r"\.tfevents\.(\d{10})\.", name) for name in os.listdir(folder)]
    return max([int(time.time()), *(int(found[1]) + 1 for found in names if found)])


class Board:
    """A new event file in `folder`. TensorBoard drops what earlier files hold from `purge_step` on.

    torch's SummaryWriter writes in a thread, where a full disk is met after the step that it belongs to, and
    with a traceback. Here a write that the system refuses is a CheckpointError of the call, and the file ends
    with a whole record.
    """

    def __init__(self, folder: Path, purge_step: int):
        seconds, host = _later_than_others(folder), socket.gethostname()
        name = f"events.out.tfevents.{seconds:010d}.{host}.{os.getpid()}.{next(_numbers)}"
        self._path = folder / name
        start = SessionLog(status=SessionLog.START)
        self._append([Event(file_version="brain.Event:2"), Event(step=purge_step, session_log=start)])

    def scalars(self, step: int, numbers: dict[str, float]) -> None:
        self._add(step, (scalar_summary(name, value) for name, value in numbers.items()))

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """image: H×W×3 uint8."""
        self._add(step, [image_summary(name, image, dataformats="HWC")])

    def _add(self, step: int, summaries: Iterable[Summary]) -> None:
        self._append([Event(step=step, summary=summary) for summary in summaries])

    def _append(self, events: list[Event]) -> None:
        records = io.BytesIO()
        writer = RecordWriter(records)
        for event in events:
            event.wall_time = time.time()
            writer.write(event.SerializeToString())
        append_bytes(self._path, records.getvalue())
