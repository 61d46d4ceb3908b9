"""What the parts hand to each other: a sample, the facts of a data set, a network's output.

Letters: B batch, C classes, K image channels, H and W height and width in pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

IGNORE = 255
"""The target value that means "no label here". It is defined here and nowhere else."""


def no_label(dtype: np.dtype, ignore_index: int = IGNORE) -> float | int:
    """The value of a target pixel without a label: the ignore index among classes, NaN among measured
    values."""
    return np.nan if np.dtype(dtype).kind == "f" else ignore_index


@dataclass(frozen=True)
class Target:
    """What the task predicts for a pixel, as geometry must treat it.

    classes: whether its values are class indices (or else measured ones). interpolation: how it is read
    between pixels; linear ones are float, with NaN where the value is unknown.
    """

    classes: bool = True
    interpolation: Literal["nearest", "linear"] = "nearest"


CLASSES = Target()
"""Class indices, read by nearest neighbour."""


@dataclass(slots=True)
class Sample:
    """One image with what is to be predicted from it.

    image: H×W×K, uint8, uint16 or float32; three channels are RGB.
    target: H×W, or H×W×T for T values a pixel, in the dtype that the task names (semantic: uint8 class
    indices, IGNORE where unlabelled; measured values: float32, NaN where unknown); None if there is none.
    instances: H×W uint16, 0 where there is no object; None if the data set has none.
    name: what errors and result files call it. group: what it was taken from (a drive, a patient), for honest
    splits.
    """

    image: np.ndarray
    target: np.ndarray | None = None
    instances: np.ndarray | None = None
    name: str = ""
    group: str = ""


@dataclass(frozen=True)
class Normalisation:
    """The network's input is (image / full scale - mean) / std, per channel; full scale is 255 or 65535
    (float images: 1)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """B×K×H×W float32 from an image batch of uint8, uint16 or float32."""
        full_scale = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(image.dtype, 1.0)
        scale, shift = _scale_and_shift(self.mean, self.std, full_scale, image.device)
        # One multiplication and one addition per pixel; a float image is the caller's and stays as it is.
        return (
            torch.addcmul(shift, image.float(), scale)
            if image.dtype == torch.float32
            else image.float().mul_(scale).add_(shift)
        )


@functools.cache
def _scale_and_shift(mean, std, full_scale: float, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Kept, because making them anew for each batch would wait for a GPU."""
    std = torch.tensor(std, device=device).view(1, -1, 1, 1)
    return 1.0 / (full_scale * std), -torch.tensor(mean, device=device).view(1, -1, 1, 1) / std


@dataclass(frozen=True)
class Facts:
    """All that a network and a predictor know of the data set; saved in every checkpoint.

    classes: names, in the order of the indices. palette: one RGB colour (0..255) a class.
    things: indices of the classes that come as countable objects.
    channels: K. normalisation: None until the encoder's weights (or the data set itself) name it.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int = IGNORE
    channels: int = 3
    things: tuple[int, ...] = ()
    normalisation: Normalisation | None = None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def plain(self) -> dict:
        """Plain lists, numbers and strings, as they are saved."""
        return asdict(self)

    @staticmethod
    def from_plain(plain: dict) -> Facts:
        norm = plain["normalisation"]
        return Facts(
            classes=tuple(plain["classes"]),
            palette=tuple(tuple(colour) for colour in plain["palette"]),
            ignore_index=plain["ignore_index"],
            channels=plain["channels"],
            things=tuple(plain["things"]),
            normalisation=None if norm is None else Normalisation(tuple(norm["mean"]), tuple(norm["std"])),
        )


@dataclass(frozen=True)
class Number:
    """One score. label: its name in tables. value: a finite number, None where nothing could be scored."""

    label: str
    value: float | int | None


@dataclass(frozen=True)
class PerClass:
    """One score a class, in the order of `Facts.classes`. label: the column's heading. mean: the key of the
    `Number` that belongs below the column, None if there is none."""

    label: str
    values: tuple[float | None, ...]
    mean: str | None = None


@dataclass(frozen=True)
class Curve:
    """Scores y at positions x. label: of y, x_label: of x."""

    label: str
    x_label: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]


ScoreDict = dict[str, Number | PerClass | Curve]
"""What a metric's `scores` gives, by the key that scores.json, metrics.jsonl and TensorBoard use."""


class Window(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Output(NamedTuple):
    """What every network returns. Only losses and the predictor upsample and crop.

    logits: B×C×h×w at the network's own stride. aux: the same for each auxiliary head, () if there is none.
    size: the (H, W) that logits upsample to. window: the part of the input that they answer for; None for
    all of it. images: the B×K×H×W images as they were read, for the loss of a task whose output is added to
    them; set by the training step.
    """

    logits: torch.Tensor
    size: tuple[int, int]
    aux: tuple[torch.Tensor, ...] = ()
    window: Window | None = None
    align_corners: bool = False
    images: torch.Tensor | None = None

    def upsampled(self, logits: torch.Tensor | None = None) -> torch.Tensor:
        """B×C×H×W logits (of an auxiliary head if one is handed in) at `size`, bilinear, float32."""
        logits = (self.logits if logits is None else logits).float()
        if tuple(logits.shape[-2:]) == tuple(self.size):
            return logits
        return F.interpolate(logits, size=tuple(self.size), mode="bilinear", align_corners=self.align_corners)

    def crop(self, target: torch.Tensor) -> torch.Tensor:
        """The part of `target` (…×H×W of the input) that the logits answer for."""
        if self.window is None:
            return target
        top, left, height, width = self.window
        return target[..., top : top + height, left : left + width]


@dataclass(frozen=True)
class View:
    """An image seen in another way, for test-time augmentation: mirrored, turned, larger …

    forward: B×K×H×W images -> B×K×h×w images of the same dtype; h×w may differ from H×W.
    backward: B×C×h×w probabilities of the view, (H, W) -> B×C×H×W probabilities of the image, and the weight
    0..1 of each pixel in the mean over views: a B×1×H×W tensor, or 1.0 for all. Where the weight is above 0,
    probabilities must sum to 1 as those of the view do.
    """

    forward: Callable[[torch.Tensor], torch.Tensor]
    backward: Callable[[torch.Tensor, tuple[int, int]], tuple[torch.Tensor, torch.Tensor | float]]


def voc_palette(num_colours: int) -> tuple[tuple[int, int, int], ...]:
    """The colours of Pascal VOC's masks (VOCdevkit `VOCcolormap`): the bits of the index spread over R, G and
    B."""
    colours = []
    for index in range(num_colours):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
        colours.append(tuple(rgb))
    return tuple(colours)


def colourise(classes: np.ndarray, palette, unlabelled: tuple[int, int, int] = (224, 224, 192)) -> np.ndarray:
    """H×W×3 uint8 colours of an H×W map of class indices; every value outside the palette is `unlabelled`."""
    table = np.full((256, 3), unlabelled, dtype=np.uint8)
    table[: len(palette)] = np.asarray(palette, dtype=np.uint8)
    return table[classes]


def wrong_pixels(target: np.ndarray, prediction: np.ndarray, ignore_index: int) -> np.ndarray:
    """H×W×3 uint8: wrong classes red, right ones light grey, pixels without a label white."""
    picture = np.full((*target.shape, 3), 225, np.uint8)
    picture[target != prediction] = (200, 30, 30)
    picture[target == ignore_index] = 255
    return picture
