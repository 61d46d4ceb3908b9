"""Hashes of image files, by which a file is recognised wherever it lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from segtrain.data.files.per_file import per_file

THREADS = 16  # more than cores: on network storage they wait
PIECE = 4096  # bytes that are read from the middle of a file


def read_hashes(paths: Sequence[str], names: Sequence[str]) -> list[str]:
    """A hash of 8 letters for each file, of its name, its size and PIECE bytes from its middle. Those of
    unchanged files come from the cache."""
    contents = per_file("image-hashes", paths, _content, str, THREADS)
    return [_hash(f"{name}\0{content}") for name, content in zip(names, contents, strict=True)]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _content(path: str) -> str:
    """What is compared of a file's content; "" for a file that cannot be read, which the reader of images
    reports."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            file.seek(max(0, size // 2 - PIECE // 2))
            return f"{size} {hashlib.sha256(file.read(PIECE)).hexdigest()}"
    except OSError:
        return ""
