"""stdout and stderr as a shell may hand them over: closed, on a full disk, a pipe without a reader, or with
an encoding that lacks characters."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

from segtrain import text
from segtrain.errors import SIGPIPE, CheckpointError
from segtrain.run.rank import launched


class Output:
    """What became of stdout. A write that fails is noted here and never raises where something is printed.

    error: that of the first write that failed. stop: the `segtrain.run.stop.Stop` of a training, whose
    results are files: a closed pipe requests its end, after any other error it goes on.
    """

    def __init__(self):
        self.error: OSError | None = None
        self.stop = None

    def note(self, error: OSError) -> None:
        if self.error is not None:
            return
        self.error = error
        if self.stop is None:
            return
        if isinstance(error, BrokenPipeError):
            self.stop.request(SIGPIPE)
        else:
            print(f"segtrain: {_unwritten(error)}; the run goes on", file=sys.stderr)

    def check(self) -> None:
        """Raises what keeps stdout from being complete: BrokenPipeError, or a CheckpointError."""
        sys.stdout.flush()
        if isinstance(self.error, BrokenPipeError):
            raise self.error
        if self.error is not None:
            raise CheckpointError(f"{_unwritten(self.error)}; send it elsewhere")


def _unwritten(error: OSError) -> str:
    from segtrain.run.storage import reason_and_remedy

    return f"cannot write to stdout: {reason_and_remedy(error)[0]}"


def tell(message: str, of_signal: bool = False) -> None:
    """Prints an error; of errors of several ranks, the first one alone. of_signal: whether a signal has ended
    the run; it comes to all ranks, and rank 0 tells of it."""
    place = launched()
    if place.size > 1:
        if of_signal and place.rank > 0:
            return
        if not _is_first_to_fail(place.rank):
            return
        message = f"rank {place.rank}: {message}"
    print(f"segtrain: error: {message}", file=sys.stderr, flush=True)


def _is_first_to_fail(rank: int) -> bool:
    """Whether no other rank has told of an error before. Until torch is imported, all ranks do the same, and
    rank 0 tells."""
    if "torch" not in sys.modules:
        return rank == 0
    from segtrain.ranks.faults import is_first_to_fail

    return is_first_to_fail()


def _only_errors() -> None:
    """For ranks above 0: prints nothing but errors, and no progress bars."""
    text.quiet = True
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr.isatty = lambda: False


def prepare() -> Output:
    """Makes stdout and stderr take every text without an exception; stdout's errors are in the Output.

    A descriptor that is closed is opened on the null device: else the next file, a checkpoint perhaps, would
    get its number and all that is printed.
    """
    output = Output()
    _open_closed()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _tolerant(sys.stdout, output.note)
    if sys.stderr is sys.__stderr__:
        # Where an error could be told, there is nothing left to tell it to.
        sys.stderr = _tolerant(sys.stderr, lambda error: None)
    if launched().rank > 0:
        _only_errors()
    return output


def _open_closed() -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


class _Descriptor(io.FileIO):
    """A descriptor that is written to; what cannot be written is lost and reported to `failed`."""

    def __init__(self, number: int, failed: Callable[[OSError], None]):
        super().__init__(number, "w", closefd=False)
        self._failed = failed

    def write(self, data) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            self._failed(error)
            return len(data)


def _tolerant(stream, failed: Callable[[OSError], None]):
    """The text stream with escapes for characters that its encoding lacks, over a `_Descriptor`."""
    if type(getattr(stream.buffer, "raw", stream.buffer)) is not io.FileIO:
        stream.reconfigure(errors="backslashreplace")  # a console of Windows
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(stream.fileno(), failed)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
