"""The data types that the parts exchange: a sample, the facts of a data set, the output of a network.

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
"""The target value of pixels without a label. It is defined here and nowhere else."""


def no_label(dtype: np.dtype, ignore_index: int = IGNORE) -> float | int:
    """The target value of a pixel without a label: the ignore index for classes, NaN for measured (float)
    values."""
    return np.nan if np.dtype(dtype).kind == "f" else ignore_index


@dataclass(frozen=True)
class Target:
    """What the values of a task's target are.

    classes: whether the target holds one class index a pixel. labels: whether each channel of the logits is a
    label of its own, which a pixel has (1) or has not (0): one channel for an H×W target, T for H×W×T.
    interpolation: how the target is resampled. Linearly interpolated targets are float, with NaN where the
    value is unknown.

    classes alone: classes that exclude each other (task=semantic). Both: the label is class 1, background is
    class 0 (task=binary). labels alone: any number of labels a pixel (task=multilabel). None of both:
    measured values.
    """

    classes: bool = True
    interpolation: Literal["nearest", "linear"] = "nearest"
    labels: bool = False

    @property
    def multilabel(self) -> bool:
        """Whether a pixel has any number of labels, so that it has no class (task=multilabel)."""
        return self.labels and not self.classes

    def num_labels(self, num_classes: int) -> int:
        """T, the number of labels, of a data set of `num_classes` names; the background of a binary
        task is no label."""
        return 1 if self.classes else num_classes


CLASSES = Target()
"""Class indices, resampled by nearest neighbour."""


@dataclass(slots=True)
class Sample:
    """One image with its target.

    image: H×W×K, uint8, uint16 or float32; three channels are RGB.
    target: H×W, or H×W×T for T values a pixel, in the dtype of the task (semantic: uint8 class indices,
    IGNORE where unlabelled; measured values: float32, NaN where unknown); None if there is none.
    instances: H×W uint16, 0 where there is no object; None if the data set has none.
    name: shown in errors, and the name of result files. group: the source of the image (a drive, a patient),
    so that a split can keep images of one source together. focus: index of the class that a crop is to
    contain, because the image was drawn for it (sampler.class_share); None: none in particular.
    """

    image: np.ndarray
    target: np.ndarray | None = None
    instances: np.ndarray | None = None
    name: str = ""
    group: str = ""
    focus: int | None = None


@dataclass(frozen=True)
class Normalisation:
    """Normalises images: (image / full scale - mean) / std, per channel; full scale is 255 for uint8, 65535
    for uint16 and 1 for float images."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """B×K×H×W float32 input of a network, from an image batch of uint8, uint16 or float32."""
        full_scale = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(image.dtype, 1.0)
        scale, shift = _scale_and_shift(self.mean, self.std, full_scale, image.device)
        # One multiplication and one addition per pixel; a float image is not changed in place.
        return (
            torch.addcmul(shift, image.float(), scale)
            if image.dtype == torch.float32
            else image.float().mul_(scale).add_(shift)
        )


@functools.cache
def _scale_and_shift(mean, std, full_scale: float, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift, both 1×K×1×1. Cached, because copying them to a GPU for each batch would
    synchronise."""
    std = torch.tensor(std, device=device).view(1, -1, 1, 1)
    return 1.0 / (full_scale * std), -torch.tensor(mean, device=device).view(1, -1, 1, 1) / std


@dataclass(frozen=True)
class Facts:
    """All that a network and a predictor know about the data set; saved in every checkpoint.

    classes: names, in the order of the indices. palette: one RGB colour (0..255) a class.
    things: indices of the classes of countable objects.
    channels: K. normalisation: None until the data set or the pretrained weights set it.
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

    @property
    def background(self) -> int | None:
        """Index of the background: of the class with that name, in upper or lower case; of two classes
        without that name, of the first. None if there is none."""
        names = [name.lower() for name in self.classes]
        return names.index("background") if "background" in names else 0 if len(names) == 2 else None

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
    """One score. label: its name in tables. value: a finite number; None if nothing could be scored."""

    label: str
    value: float | int | None


@dataclass(frozen=True)
class PerClass:
    """One score per class, in the order of `Facts.classes`. label: heading of the column. mean: key of the
    `Number` that is shown below the column; None if there is none. groups: names of the groups of classes
    that the values are for, such as categories; None: they are for the classes."""

    label: str
    values: tuple[float | None, ...]
    mean: str | None = None
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Curve:
    """Scores y at positions x. label: name of y. x_label: name of x."""

    label: str
    x_label: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]


ScoreDict = dict[str, Number | PerClass | Curve]
"""The result of a metric's `scores`, by the keys used in scores.json, metrics.jsonl and TensorBoard."""


class Window(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Output(NamedTuple):
    """The result of every network's `forward`. Only losses and the predictor upsample and crop it.

    logits: B×C×h×w at the network's own stride. aux: such logits of each auxiliary head, () if there is none.
    size: the (H, W) that logits are upsampled to. window: the part of the input that the logits cover; None
    for all of it. images: the B×K×H×W images before normalisation, for the loss of a task whose output is
    added to the images; set by the training step. step: number of optimizer steps before this one, for losses
    that change during a run; set by the training step.
    """

    logits: torch.Tensor
    size: tuple[int, int]
    aux: tuple[torch.Tensor, ...] = ()
    window: Window | None = None
    align_corners: bool = False
    images: torch.Tensor | None = None
    step: int = 0

    def upsampled(self, logits: torch.Tensor | None = None) -> torch.Tensor:
        """B×C×H×W float32: the logits, or those of an auxiliary head if given, upsampled bilinearly to
        `size`."""
        logits = (self.logits if logits is None else logits).float()
        if tuple(logits.shape[-2:]) == tuple(self.size):
            return logits
        return F.interpolate(logits, size=tuple(self.size), mode="bilinear", align_corners=self.align_corners)

    def crop(self, target: torch.Tensor) -> torch.Tensor:
        """The part of `target` (…×H×W, for the whole input) that the logits cover."""
        if self.window is None:
            return target
        top, left, height, width = self.window
        return target[..., top : top + height, left : left + width]


@dataclass(frozen=True)
class View:
    """One view of an image for test-time augmentation: flipped, rotated, scaled …

    forward: B×K×H×W images -> B×K×h×w images of the same dtype; h×w may differ from H×W.
    backward: (B×C×h×w probabilities of the view, (H, W)) -> B×C×H×W probabilities of the image, and the
    weight 0..1 of each pixel in the mean over views: a B×1×H×W tensor, or 1.0 for all pixels. Where the
    weight is above 0, the probabilities must sum to 1 over the classes if those of the view do.
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


UNLABELLED = (224, 224, 192)
"""The colour of pixels without a label; that of Pascal VOC's masks."""


def colourise(classes: np.ndarray, palette, unlabelled: tuple[int, int, int] = UNLABELLED) -> np.ndarray:
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
