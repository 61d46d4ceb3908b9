"""Sizes and depths of images, from their headers."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from segtrain.data.files.per_file import per_file
from segtrain.data.files.reading import read_header, read_image
from segtrain.data.parts import Header
from segtrain.errors import DataError

THREADS = 16  # more than cores: on network storage they wait


def read_headers(paths: Sequence[str]) -> list[Header | DataError]:
    """The header of each image file, or why it cannot be read; those of unchanged files come from the cache.
    Files that seem to be cut off are decoded to be sure."""
    return per_file("headers", paths, _header_or_error, _parsed, THREADS)


def _header_or_error(path: str) -> Header | DataError:
    try:
        header = read_header(path)
        if _may_be_cut_off(path):
            read_image(path, max_pixels=sys.maxsize)
        return header
    except DataError as error:
        return error


ENDS = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}
"""What files of PNG and JPEG begin with, and what they have near their end."""
TAIL = 1024  # bytes in which the end is looked for: some writers add a few of their own


def _may_be_cut_off(path: str) -> bool:
    """Whether a PNG or JPEG lacks its end, as after an interrupted copy. Files with much data after their end
    lack it too, so that only decoding tells."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        begin = file.read(4)
        file.seek(max(0, os.path.getsize(path) - TAIL))
        tail = file.read(TAIL)
        return any(begin.startswith(start) and end not in tail for start, end in ENDS.items())
    return False


def _parsed(plain: list) -> Header:
    height, width, dtype = plain
    if not (type(height) is type(width) is int and min(height, width) > 0 and isinstance(dtype, str)):
        raise ValueError("not a header")
    return Header(height, width, dtype)
