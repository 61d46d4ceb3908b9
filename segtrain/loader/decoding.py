"""Decodes the samples of a split once, for all runs: the folders of loader.cache=disk.

A folder is called by what its samples are made of (`Source`), so a changed file, label map or option leads to
another folder. It is built beside its place and renamed when it is complete.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import PIL
from PIL import features
from tqdm import tqdm

import segtrain
from segtrain.data.files.per_file import cache_folder, settled_states
from segtrain.data.joined import headers_of, source_of
from segtrain.data.parts import Header, Source, Split
from segtrain.errors import CheckpointError, ConfigError, DataError
from segtrain.loader.decoded import Damaged, Decoded, Writer, read_index
from segtrain.loader.usable import first_usable
from segtrain.run.storage import (
    free_bytes,
    in_words,
    remove,
    remove_leftovers,
    storage,
    sync_folder,
    temporary_name,
)
from segtrain.sample import Sample
from segtrain.settings import Loader
from segtrain.text import count, notice

VERSION = 1  # of what lies in a folder; rises when samples are read otherwise
THREADS = min(8, os.cpu_count() or 1)


def decoded(split: Split, settings: Loader, interrupt: Callable[[], None] = lambda: None) -> Split:
    """The split with its samples decoded on disk if loader.cache=disk asks for it, else the split itself.

    A folder that lacks, or that is damaged, is built first. interrupt: called before each sample; an
    exception that it raises ends the building, of which nothing is left. ConfigError for a split without
    `source`, DataError for an unreadable sample, unless loader.on_bad=skip, CheckpointError for too little
    space.
    """
    if settings.cache != "disk" or isinstance(split, Decoded):
        return split
    sources = [source_of(split, index) for index in range(len(split))]
    if None in sources:
        raise ConfigError(
            "loader.cache=disk needs to know the files of each sample, and this data set does not tell them; "
            "use loader.cache=memory or none"
        )
    key = _key(sources)
    base = cache_folder() / "decoded" if settings.cache_dir is None else Path(settings.cache_dir)
    entries = _entries(base / key, key)
    if entries is None:
        entries = _built(split, sources, base, key, settings.skip_bad, interrupt)
    return Decoded(split, base / key, entries)


def _key(sources: Sequence[Source]) -> str:
    """The name of the folder: a digest of all sources, of the size, inode and times of all files, and of the
    versions of what decodes them."""
    states = settled_states(file for source in sources for file in source.files)
    readers = [segtrain.__version__, PIL.__version__, features.version("jpg"), cv2.__version__]
    digest = hashlib.sha256(f"{VERSION} {readers}".encode())
    for files, reading in sources:
        made_of = [(os.path.abspath(file), states[file]) for file in files]
        digest.update(f"{made_of!r} {reading!r}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _entries(folder: Path, key: str) -> list | None:
    """The entries of a complete and undamaged folder; None if there is none. A damaged one is removed."""
    if not os.path.lexists(folder):
        return None
    try:
        return read_index(folder, key)
    except Damaged as damage:
        notice(f"the decoded samples in {folder} are damaged ({damage}); they are decoded again")
    aside = temporary_name(_building(folder.parent) / key)
    with storage(folder), contextlib.suppress(FileNotFoundError):
        os.rename(folder, aside)
    remove(aside)
    return None


def _built(split, sources: list[Source], base: Path, key: str, skip_bad: bool, interrupt) -> list:
    """Decodes all samples into the folder `base/key`; returns its entries."""
    first_of = {}  # samples of one source are stored once
    for index, source in enumerate(sources):
        first_of.setdefault(source, index)
    needed = _needed_bytes(split, list(first_of.values()), skip_bad)
    _check_space(base, needed, len(first_of))
    temporary = temporary_name(_building(base) / key)
    try:
        with storage(base / key, needed):
            temporary.mkdir()
            writer, entry_of = Writer(temporary), {}
            with contextlib.closing(_samples(split, first_of.values(), skip_bad, interrupt)) as samples:
                for index, sample in samples:
                    entry_of[sources[index]] = writer.add(sample)
            writer.write_index(key, [entry_of.get(source) for source in sources])
            sync_folder(temporary)
            if _key(sources) != key:
                raise DataError("files of the data set changed while they were decoded; start again")
            return _published(temporary, base / key, key)
    finally:
        remove(temporary)


def _needed_bytes(split, indices: list[int], skip_bad: bool) -> int:
    """Bytes of the decoded samples, from the size of each image and the bytes per pixel of the first."""
    sample = first_usable(split, skip_bad)
    arrays = [array for array in (sample.image, sample.target, sample.instances) if array is not None]
    per_pixel = sum(array.nbytes for array in arrays) / (sample.image.shape[0] * sample.image.shape[1])
    headers = [header for header in headers_of(split, indices) if isinstance(header, Header)]
    return round(per_pixel * sum(header.height * header.width for header in headers))


def _check_space(base: Path, needed: int, num: int) -> None:
    free = free_bytes(base)
    about = f"{count(num, 'sample')} decoded into {base}"
    if free is not None and free < needed:
        raise CheckpointError(
            f"{about}: needed {in_words(needed)}, free {in_words(free)}; free some space, set "
            f"loader.cache_dir to a folder on another disk, or loader.cache=none"
        )
    notice(f"{about}, once for all runs: {in_words(needed)}" + (f" of {in_words(free)} free" if free else ""))


def _building(base: Path) -> Path:
    """The folder in which this machine builds. What its ended processes left there is removed; whether those
    of another machine have ended, this one cannot tell."""
    folder = base / f".building-{re.sub(r'[^0-9A-Za-z.-]', '_', socket.gethostname())}"
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
    return folder


def _samples(
    split, indices: Iterable[int], skip_bad: bool, interrupt: Callable[[], None]
) -> Iterator[tuple[int, Sample]]:
    """(index, sample) of each readable sample, in order, decoded in several threads."""

    def read(index: int) -> tuple[int, Sample | DataError]:
        try:
            return index, split[index]
        except DataError as error:
            return index, error

    indices = list(indices)
    bar = tqdm(total=len(indices), unit="sample", desc="decoding", leave=False, disable=None)
    pool = ThreadPoolExecutor(THREADS)
    waiting, rest = collections.deque(), iter(indices)
    try:
        for _ in indices:
            while len(waiting) < 2 * THREADS and (index := next(rest, None)) is not None:
                waiting.append(pool.submit(read, index))
            interrupt()
            index, sample = waiting.popleft().result()
            bar.update()
            if not isinstance(sample, DataError):
                yield index, sample
            elif not skip_bad:
                raise sample
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()


def _published(temporary: Path, folder: Path, key: str) -> list:
    """Renames the complete folder into its place, unless another process has put one there; returns the
    entries of the one in place."""
    while True:
        try:
            os.rename(temporary, folder)
            sync_folder(folder.parent)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        entries = _entries(folder, key)
        if entries is not None:
            return entries
        if not temporary.exists():
            raise CheckpointError(f"{folder} was removed or damaged while it was built; start again")
