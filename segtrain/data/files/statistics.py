"""Mean and standard deviation of the channels of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from segtrain.data.files.channels import Channels
from segtrain.data.files.pairs import Pair
from segtrain.data.files.per_file import per_file
from segtrain.errors import ConfigError, DataError
from segtrain.sample import Normalisation
from segtrain.text import count, notice

THREADS = min(8, os.cpu_count() or 1)
FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0}


class ImageReader(Protocol):
    """How images are read. kind: differs where other pixels are measured."""

    kind: str

    def moments_of(self, path: str, channels: Channels) -> list:
        """The `moments` of the pixels of a file. channels: which of its bands."""


def measured_normalisation(
    channels: Channels | None,
    pairs: Sequence[Pair],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    reader: ImageReader,
    skip_bad: bool,
) -> Normalisation | None:
    """The normalisation by data.mean and data.std, or measured on the images of `pairs` where these are not
    given. None if the images are RGB of 8 or 16 bits: that of the network's pretrained weights then is the
    better one.
    """
    number = 3 if channels is None else channels.number
    if (mean is None) != (std is None):
        raise ConfigError("data.mean and data.std go together; give both or neither")
    if mean is not None:
        if not len(mean) == len(std) == number:
            raise ConfigError(
                f"data.mean has {len(mean)} and data.std {len(std)} numbers; allowed: {number}, one a channel"
            )
        return Normalisation(tuple(mean), tuple(std))
    if channels is None or (number == 3 and not _is_float(channels, pairs)):
        return None
    paths = list(dict.fromkeys(pair.image for pair in pairs))
    return normalisation_of(paths, channels, reader, skip_bad)


def _is_float(channels: Channels, pairs: Sequence[Pair]) -> bool:
    """Whether the first image that can be read holds floats."""
    headers = channels.headers([pair.image for pair in pairs])
    first = next((header for header in headers if not isinstance(header, DataError)), None)
    return first is not None and first.dtype == "float32"


def normalisation_of(
    paths: Sequence[str], channels: Channels, reader: ImageReader, skip_bad: bool
) -> Normalisation:
    """The mean and standard deviation of each channel over all pixels of all images, on the scale of
    `Normalisation`. Results of unchanged files come from the cache.

    skip_bad: leave out images that cannot be read. DataError if none can.
    """
    whole = (
        Channels(1) if channels.suffixes else channels
    )  # files of one channel are measured each for itself
    files = [file for path in paths for file in channels.files(path)]

    def measured(path: str) -> list | DataError:
        try:
            return reader.moments_of(path, whole)
        except DataError as error:
            return error

    kind = f"statistics{reader.kind}-{'-'.join(map(str, channels.bands)) or whole.number}"
    notice(f"reading {count(len(paths), 'image')} once for the mean and std of {channels.number} channels …")
    found = per_file(kind, files, measured, _parsed, THREADS)
    errors = [one for one in found if isinstance(one, DataError)]
    if errors and (not skip_bad or len(errors) == len(found)):
        raise errors[0]
    step = len(channels.suffixes) or 1
    of_parts = [
        merged([one for one in found[part::step] if not isinstance(one, DataError)]) for part in range(step)
    ]
    means, stds = (np.concatenate(values) for values in zip(*of_parts, strict=True))
    constant = np.flatnonzero(stds == 0)
    if len(constant):
        shown = ", ".join(str(channel + 1) for channel in constant)
        notice(f"warning: channel {shown} holds one value in all training images; it tells nothing")
    stds = np.where(stds > 0, stds, 1.0)
    return Normalisation(tuple(map(float, means)), tuple(map(float, stds)))


def moments(image: np.ndarray) -> list:
    """[number of pixels, means, variances] of an H×W×K image, on the scale of its type."""
    values = image.reshape(-1, image.shape[2])
    scale = FULL_SCALE.get(image.dtype.name, 1.0)
    means = values.mean(0, dtype=np.float64)
    # One channel at a time: float64 copies of all would take eight times the image.
    squares = [np.square(values[:, k] - means[k]).mean() for k in range(values.shape[1])]
    return [len(values), (means / scale).tolist(), (np.array(squares) / scale**2).tolist()]


def _parsed(plain: list) -> list:
    pixels, means, variances = plain
    if not (type(pixels) is int and pixels > 0 and len(means) == len(variances) > 0):
        raise ValueError("no moments")
    return [pixels, [float(mean) for mean in means], [float(variance) for variance in variances]]


def merged(moments: list[list]) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations over several files: variance = mean of (variance + mean²) - mean²."""
    pixels = np.array([one[0] for one in moments], np.float64)[:, None]
    means, variances = (np.array([one[place] for one in moments]) for place in (1, 2))
    mean = (pixels * means).sum(0) / pixels.sum()
    variance = (pixels * (variances + np.square(means - mean))).sum(0) / pixels.sum()
    return mean, np.sqrt(variance)
