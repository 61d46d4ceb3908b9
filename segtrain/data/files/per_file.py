"""What is read of each file of a list: by several threads, with progress, remembered in the user's cache
folder."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from segtrain.errors import CheckpointError, DataError
from segtrain.run.own import parsed, read_own
from segtrain.run.storage import remove_leftovers, written

VERSION = 2  # of the cache files' content
ALONE_S = 0.05  # how long the calling thread reads alone: few files take less time than threads take to start
AT_ONCE = 1024  # files handed to the threads at a time
SETTLED_S = 2  # coarsest step of a file system's clock, see `_entry`
MAX_BYTES = 1 << 30  # of a cache file that is read


def per_file(
    kind: str, paths: Sequence[str], read: Callable[[str], object], parse: Callable, threads: int
) -> list:
    """`read(path)` of each file, in order. Files that are as they were when they were last read are not read
    again, in later calls and by other processes too.

    kind: name of the cache. read: gives plain values for JSON; an error that it gives back, and does not
    raise, is put into the list and not remembered. parse: what `read` gave, from what JSON has made of it;
    raises anything for what `read` cannot have given. threads: so many at most.
    """
    cache = _cache_file(kind, paths)
    remembered = _load(cache, len(paths))

    def current(item: tuple[str, object]) -> tuple[object, list | None]:
        """What is read of a file, and its entry in the cache; None if it is the remembered one."""
        path, entry = item
        state = _state(path)
        with contextlib.suppress(Exception):  # a damaged cache may hold anything
            if state is not None and entry["state"] == state:
                return parse(entry["value"]), entry
        value = read(path)
        return value, _entry(state, value)

    values, entries = [], []
    items = zip(paths, remembered, strict=True)
    with contextlib.closing(_in_order(current, items, threads)) as results:
        for value, entry in tqdm(
            results, total=len(paths), unit="file", desc=f"reading {kind}", delay=1, leave=False, disable=None
        ):
            values.append(value)
            entries.append(entry)
    if entries != remembered:
        _save(cache, entries)
    return values


def _in_order(function: Callable, items: Iterator, threads: int) -> Iterator:
    """`function(item)` of each item; the first ones in this thread."""
    end = time.monotonic() + ALONE_S
    for item in items:
        yield function(item)
        if time.monotonic() > end:
            break
    with ThreadPoolExecutor(threads) as pool:
        while several := list(itertools.islice(items, AT_ONCE)):
            yield from pool.map(function, several)


def _state(path: str) -> list[int] | None:
    """What changes with a file's content and costs no reading: size, inode, time of the last write and of the
    last change of the inode, which no copying tool sets back as it does the time of the write. None if there
    is no such file."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return [state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]


def _entry(state: list[int] | None, value: object) -> dict | None:
    """What the cache holds of a file; None for errors, and for files that are so new that another write could
    leave them with the same times."""
    if state is None or isinstance(value, DataError) or max(state[2:]) / 1e9 > time.time() - SETTLED_S:
        return None
    return {"state": state, "value": value}


def _cache_file(kind: str, paths: Sequence[str]) -> Path:
    digest = hashlib.sha256(str(VERSION).encode())
    for path in paths:
        digest.update(os.path.abspath(path).encode("utf-8", "surrogateescape") + b"\0")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "segtrain" / f"{kind}-{digest.hexdigest()[:32]}.json"


def _load(cache: Path, num: int) -> list:
    """The entries of `num` files, each of them to be checked; None where there is none."""
    with contextlib.suppress(OSError, ValueError):
        entries = parsed(read_own(cache, MAX_BYTES))
        if isinstance(entries, list) and len(entries) == num:
            return entries
    return [None] * num


def _save(cache: Path, entries: list) -> None:
    """Replaces the whole file, so that of two processes the last one wins. A cache that cannot be written
    costs time, nothing else."""
    with contextlib.suppress(OSError, CheckpointError):
        with written(cache) as file:
            file.write(json.dumps(entries, separators=(",", ":")).encode())
        remove_leftovers(cache.parent)
