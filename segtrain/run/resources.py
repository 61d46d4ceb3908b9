"""What the system refuses a process: memory, address space, open files, threads. Exceptions of others in the
user's terms."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from segtrain.errors import SIGPIPE, ConfigError, ResourceError, SegtrainError

try:
    import resource
except ImportError:  # Windows
    resource = None

OUT_OF_MEMORY = (
    "allocate memory",  # torch on the CPU, strerror(ENOMEM)
    "Insufficient memory",  # OpenCV
    "bad_alloc",
)
"""Texts of exceptions that have no class of their own for it."""
NOT_LOADED = ("failed to map segment", "cannot allocate memory", "cannot create shared object")
"""Texts of glibc's loader for a library that finds no address space."""
LEAST_ADDRESS_SPACE = 600 << 20
"""No build of torch can be imported with less; in much less than that Python itself breaks in ways that no
exception tells."""


def known_error(error: BaseException) -> SegtrainError | None:
    """The error of the user that stands for an exception of the system or of a library; None if it is none.

    torch's classes are not imported for it: the CPU's allocator has none, the GPU's is called
    OutOfMemoryError.
    """
    if isinstance(error, SegtrainError):
        return error
    number, text = getattr(error, "errno", None), str(error)
    if number == errno.ENAMETOOLONG:
        return ConfigError(f"{error.filename}: the name is too long; allowed: 255 bytes a folder")
    if isinstance(error, (ImportError, OSError)) and any(words in text for words in NOT_LOADED):
        return _too_little_address_space(text)
    is_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if is_memory or number == errno.ENOMEM or any(words in text for words in OUT_OF_MEMORY):
        return ResourceError(
            f"out of memory{_limit()}; use a smaller loader.batch_size, fewer loader.workers or a smaller "
            f"predictor.tile"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return ResourceError("too many open files; raise the limit (ulimit -n 65536) or use fewer workers")
    if "can't start new thread" in text or (number == errno.EAGAIN and isinstance(error, BlockingIOError)):
        return ResourceError(
            f"the system starts no more threads or processes{_limit()}; raise the limit (ulimit -u), or use "
            f"fewer workers and threads"
        )
    return None


@contextlib.contextmanager
def known_errors() -> Iterator[None]:
    """Raises the `known_error` of an exception in its place, if there is one."""
    try:
        yield
    except SegtrainError:
        raise
    except Exception as error:
        known = known_error(error)
        if known is None:
            raise
        raise known from error


def exit_code_of(error: BaseException | None) -> int:
    """What the process ends with after an exception; 0 for None."""
    if error is None:
        return 0
    if isinstance(error, BrokenPipeError):
        return 128 + SIGPIPE
    known = known_error(error)
    return known.exit_code if known else 130 if isinstance(error, KeyboardInterrupt) else 1


def check_address_space() -> None:
    """ResourceError if this process may not use enough to import torch at all."""
    limit = _address_space()
    if limit is not None and limit < LEAST_ADDRESS_SPACE:
        raise _too_little_address_space("torch")


def lacks_files(num: int) -> int | None:
    """The limit of open files if it has no room for `num` more than are open; None if it has.

    The soft limit is raised first, as far as the hard one lets it.
    """
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _open_files() + num
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return None
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    return soft if needed > soft else None


def _open_files() -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir("/dev/fd"))
    return 32


def _too_little_address_space(library: str) -> ResourceError:
    return ResourceError(
        f"too little address space to load {library}{_limit()}; raise the limit (ulimit -v unlimited) or "
        f"give the job more memory"
    )


def _address_space() -> int | None:
    """Bytes of it that this process may use; None: without limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0] if resource else -1
    return None if resource is None or limit == resource.RLIM_INFINITY else limit


def _limit() -> str:
    """The limit of the address space as a part of a message; "" if there is none."""
    limit = _address_space()
    return "" if limit is None else f"; this process may use {limit / 1e9:.2f} GB (ulimit -v)"
