"""Applies a reading function to each file of a list, in several threads, with progress and a cache of the
results in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from segtrain.errors import CheckpointError, DataError
from segtrain.run.own import parsed, read_own
from segtrain.run.storage import remove_leftovers, written

VERSION = 3  # of the cache files' content
ALONE_S = 0.05  # how long the calling thread reads alone: few files take less time than threads take to start
AT_ONCE = 1024  # files handed to the threads at a time
CLOCK_S = 2  # coarsest resolution of a file system's times, see `_entry`
WAITING = 16  # threads: on network storage they wait
MAX_BYTES = 1 << 30  # of a cache file that is read


def per_file(
    kind: str, paths: Sequence[str], read: Callable[[str], object], parse: Callable, threads: int
) -> list:
    """`read(path)` of each file, in order. Results are cached for later calls and other processes; a file is
    read again if its size, inode or times have changed.

    kind: name of the cache, such as "headers". read: path -> a value that JSON can hold; a DataError that it
    returns is put into the list and not cached. parse: cached JSON value -> the value that `read` returned;
    any exception means that the entry is damaged, and the file is read again. threads: at most so many.
    """
    cache = _cache_file(kind, paths)
    cached = _load(cache, len(paths))

    def current(item: tuple[str, object]) -> tuple[object, list | None]:
        """The value of a file, and its entry for the cache; None if it must not be cached."""
        path, entry = item
        state = file_state(path)
        with contextlib.suppress(Exception):  # a damaged cache may hold anything
            if state is not None and entry["state"] == state:
                return parse(entry["value"]), entry
        value = read(path)
        return value, _entry(state, value)

    values, entries = [], []
    items = zip(paths, cached, strict=True)
    with contextlib.closing(_in_order(current, items, threads)) as results:
        for value, entry in tqdm(
            results, total=len(paths), unit="file", desc=f"reading {kind}", delay=1, leave=False, disable=None
        ):
            values.append(value)
            entries.append(entry)
    if entries != cached:
        _save(cache, entries)
    return values


def _in_order(function: Callable, items: Iterator, threads: int) -> Iterator:
    """`function(item)` of each item, in order; the first ones, for ALONE_S, in the calling thread."""
    end = time.monotonic() + ALONE_S
    for item in items:
        yield function(item)
        if time.monotonic() > end:
            break
    with ThreadPoolExecutor(threads) as pool:
        while several := list(itertools.islice(items, AT_ONCE)):
            yield from pool.map(function, several)


def file_state(path: str) -> list[int] | None:
    """(size, inode, mtime, ctime), which change when a file's content does; None if there is no such file.
    The ctime is included because copying tools preserve the mtime."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return [state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]


def settled_states(paths: Iterable[str]) -> dict[str, list[int] | None]:
    """{path: (size, inode, mtime, ctime)} of files; None of one that does not exist. Waits until every
    file's times are so old that a further write changes them."""
    paths = list(dict.fromkeys(paths))
    while True:
        with ThreadPoolExecutor(WAITING) as pool:
            states = dict(zip(paths, pool.map(file_state, paths), strict=True))
        newest = max((max(state[2:]) / 1e9 for state in states.values() if state), default=0.0)
        if not 0 <= time.time() - newest < CLOCK_S:  # times in the future will not come
            return states
        time.sleep(max(0.01, newest + CLOCK_S - time.time()))


def _entry(state: list[int] | None, value: object) -> dict | None:
    """The cache entry of a file; None for errors, and for files modified so recently that a further write
    could leave the times unchanged."""
    if state is None or isinstance(value, DataError) or max(state[2:]) / 1e9 > time.time() - CLOCK_S:
        return None
    return {"state": state, "value": value}


def _cache_file(kind: str, paths: Sequence[str]) -> Path:
    digest = hashlib.sha256(str(VERSION).encode())
    for path in paths:
        digest.update(os.path.abspath(path).encode("utf-8", "surrogateescape") + b"\0")
    return cache_folder() / f"{kind}-{digest.hexdigest()[:32]}.json"


def cache_folder() -> Path:
    """The folder of the user's cache that holds what has been read from data files; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "segtrain"


def _load(cache: Path, num: int) -> list:
    """The cached entries of `num` files, not checked yet; None for files without one."""
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
