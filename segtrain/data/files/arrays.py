"""Numeric arrays of .npy files. Pickled objects are never loaded."""

from __future__ import annotations

import math

import numpy as np

from segtrain.errors import DataError

MAGIC = b"\x93NUMPY"


def is_npy(file) -> bool:
    """Whether a file begins as an .npy file does; the file position is restored."""
    start = file.read(len(MAGIC))
    file.seek(-len(start), 1)
    return start == MAGIC


def npy_layout(file, path: str) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, type, and whether the first axis runs fastest (Fortran order); the file then stands at the
    values. DataError for other than two or three axes, for types that are no numbers, and for a truncated
    file."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
        version
    )
    if read is None:
        raise DataError(
            f"{path} is of .npy version {version}; allowed: 1.0 and 2.0; save it anew by numpy.save"
        )
    shape, fortran, dtype = read(file)
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise DataError(f"{path} holds {dtype}; allowed: bool, integers and floats; save it as one of these")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise DataError(
            f"{path} has the shape {shape}; allowed: height, width, channels; save it in that shape"
        )
    here = file.tell()
    length = file.seek(0, 2) - here
    file.seek(here)
    if length < math.prod(shape) * dtype.itemsize:
        raise DataError(
            f"{path} is truncated: {length} bytes for shape {shape} of {dtype}; replace or remove it"
        )
    return shape, dtype, fortran


def read_npy(file, path: str) -> np.ndarray:
    """The array, in the byte order of this machine."""
    shape, dtype, fortran = npy_layout(file, path)
    values = np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype)
    return values.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="))


def channel_axis(shape: tuple[int, ...], channels: int | None) -> int | None:
    """The axis of an array that holds the channels: of that length, the last one first; where the number is
    not known, the shorter one of the first and the last. None if there are two axes."""
    if len(shape) == 2:
        return None
    if channels in (shape[2], shape[0]):
        return 2 if shape[2] == channels else 0
    return 2 if shape[2] <= shape[0] else 0
