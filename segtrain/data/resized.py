"""A split with its images and labels resized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import interpolate

from segtrain.data.joined import headers_of
from segtrain.data.parts import Header, Split
from segtrain.errors import DataError
from segtrain.sample import Sample


class Resized:
    """The samples of a split, each resized to a shorter side of `short_side` pixels, as torchvision's
    reference scripts evaluate: images bilinearly with antialiasing, labels by nearest neighbour."""

    def __init__(self, split: Split, short_side: int):
        self.split, self.short_side = split, short_side

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        sample = self.split[index]
        size = resized_size(sample.image.shape[:2], self.short_side)
        return replace(
            sample,
            image=resized_image(sample.image, size),
            target=None if sample.target is None else nearest(sample.target, size),
            instances=None if sample.instances is None else nearest(sample.instances, size),
        )

    def name(self, index: int) -> str:
        return self.split.name(index)

    def size(self, index: int) -> tuple[int, int]:
        return resized_size(self.split.size(index), self.short_side)

    def headers(self, indices: Sequence[int]) -> list[Header | DataError]:
        """The header of each image, or the DataError of a sample that cannot be used."""
        return [
            one if isinstance(one, DataError) else Header(*resized_size(one[:2], self.short_side), one.dtype)
            for one in headers_of(self.split, list(indices))
        ]


def resized_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(H, W) after resizing (H, W) to a shorter side of `short_side`; the longer side is rounded down."""
    short, long = sorted(size)
    long = int(short_side * long / short)
    return (short_side, long) if size[0] <= size[1] else (long, short_side)


def resized_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """H×W×K image of any dtype, bilinear with antialiasing."""
    values = torch.from_numpy(image.astype(np.float32).transpose(2, 0, 1))[None]  # 1×K×H×W
    made = interpolate(values, size, mode="bilinear", antialias=True)[0].numpy().transpose(1, 2, 0)
    return made if image.dtype.kind == "f" else made.round().astype(image.dtype)


def nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """H×W or H×W×T values, each output pixel taken from the pixel that its centre falls into."""
    rows, columns = (
        np.minimum(_centres(new, old).astype(int), old - 1)
        for new, old in zip(size, values.shape[:2], strict=True)
    )
    return values[rows][:, columns]


def _centres(new: int, old: int) -> np.ndarray:
    """Centres of `new` pixels across `old` ones, added up as Pillow does: where a centre falls between two
    pixels, rounding decides."""
    step = old / new
    return np.cumsum([step / 2, *[step] * (new - 1)])
