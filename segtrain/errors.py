"""What can go wrong for a user, each with its exit code.

A message is one line: what, where (the file or the key as typed), what came, what is allowed, what to do.
"""


class SegtrainError(Exception):
    """Something that the user can mend. `exit_code` is what the process ends with."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(SegtrainError, ValueError):
    """A key, a value, a name or a path on the command line or in a YAML is wrong."""

    exit_code = 2


class SizeError(ConfigError):
    """The network takes no images of this size. In training the config decides it, in prediction the
    image."""


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
"""The signal's number also where a system does not know it: stdout has lost its reader."""


class Interrupted(SegtrainError):
    """A signal, or a stdout without a reader, asked the run to end; the exit code is 128 + the signal's
    number: 129 SIGHUP, 130 SIGINT, 138 SIGUSR1, 140 SIGUSR2, 141 SIGPIPE, 143 SIGTERM, 152 SIGXCPU."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signal_number


def printable(text: str) -> str:
    """`text` with control characters escaped, so that a file's name cannot forge or break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def nearest(word: str, words) -> str:
    """`" (did you mean 'smooth'?)"`, or `""` when nothing is near."""
    import difflib

    found = difflib.get_close_matches(str(word), [str(w) for w in words], n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""
