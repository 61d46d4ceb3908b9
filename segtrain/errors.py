"""Exceptions for errors that the user can correct, each with its exit code.

A message is one line: what is wrong, where (file, or key as typed), what was given, what is allowed, what to
do.
"""

from collections.abc import Collection


class SegtrainError(Exception):
    """An error that the user can correct. `exit_code` is the exit code of the process."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(SegtrainError, ValueError):
    """A key, a value, a name or a path on the command line or in a YAML is wrong."""

    exit_code = 2


class SizeError(ConfigError):
    """The network does not take images of this size, which come from the config in training and from the file
    in prediction."""


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
"""Number of the signal for a stdout whose reader has closed it, also on systems without that signal."""


class Interrupted(SegtrainError):
    """A signal, or a stdout without a reader, asked the run to end; the exit code is 128 + the signal's
    number: 129 SIGHUP, 130 SIGINT, 138 SIGUSR1, 140 SIGUSR2, 141 SIGPIPE, 143 SIGTERM, 152 SIGXCPU."""

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


def unknown_key(key: str, owner: str, known: Collection[str], hint: str | None = None) -> ConfigError:
    """The error for a key that does not exist, wherever one is found.

    key: as typed ("loss.smoth"). owner: what has no such option ("loss 'dice'"). known: names of its options.
    hint: `nearest` of its own, where the last word of the key is not the one to compare.
    """
    if hint is None:
        hint = nearest(key.rpartition(".")[2], known)
    return ConfigError(
        f"{key} is not an option of {owner}{hint}; options are {', '.join(sorted(known)) or 'none'}"
    )
