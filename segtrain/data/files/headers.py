"""Sizes and depths of images, from their headers."""

from __future__ import annotations

from collections.abc import Sequence

from segtrain.data.files.per_file import per_file
from segtrain.data.files.reading import read_header
from segtrain.data.parts import Header
from segtrain.errors import DataError

THREADS = 16  # more than cores: on network storage they wait


def read_headers(paths: Sequence[str]) -> list[Header | DataError]:
    """The header of each image file, or why it cannot be read; those of unchanged files come from the
    cache."""
    return per_file("headers", paths, _header_or_error, _parsed, THREADS)


def _header_or_error(path: str) -> Header | DataError:
    try:
        return read_header(path)
    except DataError as error:
        return error


def _parsed(plain: list) -> Header:
    height, width, dtype = plain
    if not (type(height) is type(width) is int and min(height, width) > 0 and isinstance(dtype, str)):
        raise ValueError("not a header")
    return Header(height, width, dtype)
