"""Decoded samples in a folder, memory-mapped: the format of the folder, and the split that reads it.

Layout: `shard-0000`, `shard-0001` … hold the arrays of the samples, each from a multiple of ALIGNMENT on;
`index.json` says where, and holds the sha256 of each shard. Its first line is its own sha256.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segtrain.data.joined import headers_of
from segtrain.data.parts import Header, Split
from segtrain.errors import DataError
from segtrain.run.own import parsed, read_own
from segtrain.sample import Sample

INDEX = "index.json"
ALIGNMENT = 64  # bytes
SHARD_BYTES = 1 << 30  # a shard that has reached this size is followed by another
MAX_INDEX = 1 << 32  # bytes that are read


class Damaged(Exception):
    """A folder of decoded samples that must not be used; the text says why."""


class Decoded:
    """A `Split` whose samples are read from memory-mapped shards; their arrays are read-only. Samples that
    are not there are read from `split`.

    entries: of each sample what `Writer.add` returned, or None.
    """

    def __init__(self, split: Split, folder: Path, entries: Sequence[list | None]):
        self.split, self.folder, self.entries = split, folder, entries
        self._shards: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        entry = self.entries[index]
        if entry is None:
            return self.split[index]
        name, group, shard, layouts = entry
        try:
            content = self._shard(shard)
            return Sample(*(layout and _view(content, *layout) for layout in layouts), name, group)
        except (OSError, ValueError):  # somebody has removed it
            return self.split[index]

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._shards:
            self._shards[number] = np.asarray(np.memmap(self.folder / shard_name(number), np.uint8, "r"))
        return self._shards[number]

    def target(self, index: int) -> np.ndarray:
        return self[index].target

    def name(self, index: int) -> str:
        return self.split.name(index)

    def size(self, index: int) -> tuple[int, int]:
        return self.split.size(index)

    def headers(self, indices: Sequence[int]) -> list[Header | DataError]:
        """The header of each image, or the DataError of a sample that cannot be used."""
        return headers_of(self.split, list(indices))

    def __getstate__(self) -> dict:
        """Each process maps the shards itself."""
        return {**self.__dict__, "_shards": {}}


class Writer:
    """Writes samples into shards in a folder, and then the index."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._file, self._digest, self._offset, self._digests = None, None, 0, []

    def add(self, sample: Sample) -> list:
        """Appends the arrays of a sample; returns its entry: name, group, number of the shard, and dtype,
        shape and offset of image, target and instances (None where there is none)."""
        if self._file is None:
            self._file = open(self.folder / shard_name(len(self._digests)), "xb")  # noqa: SIM115
            self._digest, self._offset = hashlib.sha256(), 0
        layouts = [
            None if array is None else self._append(array)
            for array in (sample.image, sample.target, sample.instances)
        ]
        entry = [sample.name, sample.group, len(self._digests), layouts]
        if self._offset >= SHARD_BYTES:
            self.close()
        return entry

    def _append(self, array: np.ndarray) -> list:
        assert array.dtype.kind in "buif", array.dtype
        layout = [array.dtype.name, list(array.shape), self._offset]
        padding = bytes(-array.nbytes % ALIGNMENT)
        for part in (np.ascontiguousarray(array).reshape(-1).view(np.uint8), padding):
            self._file.write(part)
            self._digest.update(part)
            self._offset += len(part)
        return layout

    def close(self) -> None:
        """Ends the current shard."""
        if self._file is None:
            return
        with self._file as file:
            self._file = None
            file.flush()
            os.fsync(file.fileno())
        self._digests.append(self._digest.hexdigest())

    def write_index(self, key: str, entries: Sequence[list | None]) -> None:
        """Ends the last shard and writes the index, after which the folder can be read."""
        self.close()
        shards = [
            {"sha256": digest, "state": _state(self.folder / shard_name(number))}
            for number, digest in enumerate(self._digests)
        ]
        content = json.dumps({"key": key, "shards": shards, "entries": list(entries)}).encode()
        with open(self.folder / INDEX, "xb") as file:
            file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            file.flush()
            os.fsync(file.fileno())


def read_index(folder: Path, key: str) -> list[list | None]:
    """The entries of a folder, whose content has been checked; `Damaged` if it is not what was written under
    `key`.

    A shard whose size and times are those at its writing counts as unchanged; another one is hashed.
    """
    try:
        digest, _, content = read_own(folder / INDEX, MAX_INDEX).partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != digest:
            raise Damaged(f"{INDEX} has other content than was written")
        index = parsed(content)
        if index["key"] != key:
            raise Damaged(f"{INDEX} belongs to other samples")
        for number, shard in enumerate(index["shards"]):
            _check_shard(folder / shard_name(number), **shard)
        return index["entries"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(str(error)) from error


def _check_shard(path: Path, sha256: str, state: list[int]) -> None:
    found = _state(path)
    if found == state:
        return
    if found[0] == state[0]:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return
    raise Damaged(f"{path.name} has other content than was written")


def _state(path: Path) -> list[int]:
    """Size, mtime and ctime. A copy has other times."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def shard_name(number: int) -> str:
    return f"shard-{number:04d}"


def _view(content: np.ndarray, dtype: str, shape: list[int], offset: int) -> np.ndarray:
    num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return content[offset : offset + num_bytes].view(dtype).reshape(shape)
