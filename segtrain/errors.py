"""Errors that a user can meet, each with its exit code.

A message is one line: what, where (file or key as typed), value given, values allowed, what to do.
"""


class SegtrainError(Exception):
    """An error that the user can fix. exit_code: exit code of the process."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(SegtrainError, ValueError):
    """A key, a value, a name or a path on the command line or in a YAML is wrong."""

    exit_code = 2


class SizeError(ConfigError):
    """The network does not support images of this size. In training the size comes from the config, in
    prediction from the image."""


class DataError(SegtrainError, ValueError):
    """A file of the data set exists and cannot be used."""

    exit_code = 3


class CheckpointError(SegtrainError):
    """Weights, a checkpoint or the storage for them cannot be read or written."""

    exit_code = 4


class DivergedError(SegtrainError):
    """The loss or the weights are no longer finite."""

    exit_code = 5


class ResourceError(SegtrainError):
    """Memory, shared memory or processes ran out."""

    exit_code = 6


SIGPIPE = 13
"""The number of the signal, defined on all systems: the reader of stdout has closed the pipe."""


class Interrupted(SegtrainError):
    """A signal, or the reader of stdout by closing the pipe, has stopped the run. exit_code: 128 + the number
    of the signal, that is, 129 SIGHUP, 130 SIGINT, 141 SIGPIPE, 143 SIGTERM."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signal_number


def printable(text: str) -> str:
    """`text` with control characters escaped, so that the name of a file cannot break or forge a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def nearest(word: str, words) -> str:
    """`" (did you mean 'smooth'?)"` with the word of `words` most similar to `word`; `""` if none is
    similar."""
    import difflib

    found = difflib.get_close_matches(str(word), [str(w) for w in words], n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""
