"""Which samples of a split can be used, told from their headers before anything is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from segtrain.data.parts import Header
from segtrain.errors import DataError
from segtrain.sample import Sample

SAMPLED = 64  # headers that stand for those of a whole training split, which may have very many


def training_headers(split, skip_bad: bool) -> list[Header]:
    """The headers of up to SAMPLED samples, evenly spaced. DataError for one that cannot be used; with
    skip_bad only if none can."""
    found = _of_one_dtype(split, _sampled(split), training_dtype(split))
    usable = [header for header in found if isinstance(header, Header)]
    errors = [error for error in found if isinstance(error, DataError)]
    if errors and not (skip_bad and usable):
        raise errors[0]
    return usable


def training_dtype(split) -> str | None:
    """The pixel type of most images of a split; None if only decoding would tell it."""
    return _common_dtype(_headers(split, _sampled(split))) if hasattr(split, "headers") else None


def evaluation_headers(split, dtype: str | None = None) -> list[Header]:
    """The headers of all samples. DataError if one of them cannot be used, or has another pixel type than
    `dtype` (None: than most)."""
    indices = range(len(split))
    found = _of_one_dtype(split, indices, dtype or _common_dtype(_headers(split, indices)))
    errors = [error for error in found if isinstance(error, DataError)]
    if errors:
        more = f" ({len(errors)} such samples of {len(split)})" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}")
    return found


def read_sample(split, index: int, dtype: str | None = None) -> Sample:
    """Sample `index`; DataError if it cannot be read or its image has another pixel type than `dtype` (None:
    any)."""
    sample = split[index]
    if dtype is not None and sample.image.dtype != dtype:
        raise _other_dtype(split, index, sample.image.dtype.name, dtype)
    return sample


def first_usable(split, skip_bad: bool) -> Sample:
    """The first sample, with skip_bad the first that can be read; DataError if there is none."""
    for index in range(len(split)):
        try:
            return read_sample(split, index)
        except DataError as error:
            last = error
            if not skip_bad:
                break
    raise last


def _sampled(split) -> range:
    return range(0, len(split), max(1, -(-len(split) // SAMPLED)))


def _headers(split, indices: Sequence[int]) -> list[Header | DataError]:
    """The header of each of these samples, or why it cannot be used."""
    if hasattr(split, "headers"):
        return split.headers(indices)
    return [_header(split, index) for index in indices]


def _header(split, index: int) -> Header | DataError:
    try:
        return Header(*split.size(index))
    except DataError as error:
        return error


def _common_dtype(headers: Sequence[Header | DataError]) -> str | None:
    dtypes = Counter(header.dtype for header in headers if isinstance(header, Header) and header.dtype)
    return dtypes.most_common(1)[0][0] if dtypes else None


def _of_one_dtype(split, indices: Sequence[int], dtype: str | None) -> list[Header | DataError]:
    """`_headers`, with a DataError in place of those of another pixel type."""
    return [
        _other_dtype(split, index, header.dtype, dtype)
        if isinstance(header, Header) and None not in (header.dtype, dtype) and header.dtype != dtype
        else header
        for index, header in zip(indices, _headers(split, indices), strict=True)
    ]


def _other_dtype(split, index: int, dtype: str, wanted: str) -> DataError:
    return DataError(
        f"{split.name(index)} has {dtype} pixels and the other images have {wanted}; allowed: one type in a "
        f"data set; save all images with as many bits a channel"
    )
