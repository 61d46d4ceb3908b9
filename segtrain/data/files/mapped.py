"""Arrays made from one large file, kept in the user's cache folder and memory-mapped from there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from segtrain.data.files.per_file import cache_folder, per_file
from segtrain.errors import CheckpointError, DataError
from segtrain.run.own import parsed, read_own
from segtrain.run.storage import remove_leftovers, written

MAGIC = b"segtrain arrays 1\n"
ALIGNMENT = 64  # bytes
MAX_HEADER = 1 << 20  # bytes
DTYPES = ("uint8", "bool", "int32", "int64", "float64")


class MappedArrays:
    """Arrays by name, not to be written to. Sent to another process, it is the path of a file that the
    process maps anew, so that all processes share one copy in memory.

    file: where the arrays lie; None if they could not be stored, then `arrays` holds them and is sent whole.
    """

    def __init__(self, file: Path | None, arrays: Mapping[str, np.ndarray] | None = None):
        self._file, self._arrays = file, arrays

    def __getitem__(self, name: str) -> np.ndarray:
        if self._arrays is None:
            self._arrays = _load(self._file)
            if self._arrays is None:
                raise DataError(f"{self._file} in the cache is gone or damaged; start again")
        return self._arrays[name]

    def __getstate__(self) -> dict:
        return {"_file": self._file, "_arrays": None if self._file else self._arrays}


def mapped_arrays(
    kind: str, path: str, build: Callable[[str], Mapping[str, np.ndarray]], check: Callable[[str], None]
) -> MappedArrays:
    """The arrays that `build(path)` makes of the content of a file. They are stored under the file's sha256:
    later calls, also for a copy of the file, neither read nor parse it.

    kind: name of these arrays, with the version of `build`. check: raises a DataError for a file that must
    not be read, such as one that is too large.
    """
    check(path)
    digest = per_file("digests", [path], _digest_or_error, _parsed_digest, threads=1)[0]
    if isinstance(digest, DataError):
        raise digest
    file = cache_folder() / f"{kind}-{digest[:32]}.arrays"
    if (arrays := _load(file)) is None:
        arrays = build(path)
        if not _save(file, arrays):
            return MappedArrays(None, arrays)
    return MappedArrays(file)


def texts(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """`pieces` of the words in UTF-8; `text_at` reads a word again."""
    return pieces([word.encode() for word in words])


def pieces(parts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The parts joined as uint8[bytes], and int64[parts + 1], where each of them starts."""
    starts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=starts[1:])
    return np.frombuffer(b"".join(parts), np.uint8), starts


def piece_at(joined: np.ndarray, starts: np.ndarray, index: int) -> bytes:
    return joined[starts[index] : starts[index + 1]].tobytes()


def text_at(joined: np.ndarray, starts: np.ndarray, index: int) -> str:
    return piece_at(joined, starts, index).decode()


def _digest_or_error(path: str) -> str | DataError:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return DataError(f"{path} cannot be read ({error.strerror})")


def _parsed_digest(plain: str) -> str:
    if len(bytes.fromhex(plain)) != 32:
        raise ValueError("not a sha256")
    return plain


def _save(file: Path, arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether the arrays could be written. Layout: MAGIC, a line of JSON {name: [dtype, shape, offset]}, the
    arrays; offsets are counted from the first multiple of ALIGNMENT after that line."""
    header, offset = {}, 0
    for name, array in arrays.items():
        assert array.dtype.name in DTYPES, name
        header[name] = [array.dtype.name, list(array.shape), offset]
        offset += _padded(array.nbytes)
    head = MAGIC + json.dumps(header).encode() + b"\n"
    with contextlib.suppress(OSError, CheckpointError):
        with written(file, len(head) + offset) as output:
            output.write(head.ljust(_padded(len(head)), b"\0"))
            for array in arrays.values():
                output.write(np.ascontiguousarray(array).data)
                output.write(b"\0" * (_padded(array.nbytes) - array.nbytes))
        remove_leftovers(file.parent)
        return True
    return False


def _load(file: Path) -> dict[str, np.ndarray] | None:
    """The mapped arrays of a file that `_save` has written; None if there is none or it is damaged."""
    try:
        head = read_own(file, MAX_HEADER)
        if not head.startswith(MAGIC):
            return None
        line = head[len(MAGIC) : head.index(b"\n", len(MAGIC)) + 1]
        first = _padded(len(MAGIC) + len(line))
        content = np.memmap(file, np.uint8, "r", first, os.path.getsize(file) - first)
        return {name: _view(content, *entry) for name, entry in parsed(line).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _view(content: np.ndarray, dtype: str, shape: list[int], offset: int) -> np.ndarray:
    if dtype not in DTYPES or offset < 0:
        raise ValueError("not an array")
    num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return content[offset : offset + num_bytes].view(dtype).reshape(shape)


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT
