"""Dense conditional random field: probabilities that agree with those of near pixels of a like colour
(Krähenbühl & Koltun 2011).

The energy of a labelling is the sum of -log p of its classes and, for every two pixels i, j of different
classes, of
    w1·exp(-|pi - pj|²/2a² - |Ii - Ij|²/2b²) + w2·exp(-|pi - pj|²/2c²),   p: place, I: colour 0..255,
each kernel divided by the roots of its sums at i and at j, as in pydensecrf. Mean field steps approximate the
marginals. Probabilities that do not sum to 1 (one sigmoid a class) count relative to their sum.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segtrain.errors import ConfigError

Refine = Callable[[Tensor, Tensor], Tensor]
"""B×K×H×W images and their B×C×H×W probabilities -> B×C×H×W probabilities."""


@dataclass(frozen=True)
class Preset:
    """w2 and c of the Gaussian kernel, w1, a and b of the bilateral one, and the number of mean field
    steps."""

    gaussian_weight: float
    gaussian_xy: float
    bilateral_weight: float
    bilateral_xy: float
    bilateral_rgb: float
    steps: int


PRESETS = {
    "pydensecrf": Preset(3, 3, 10, 80, 13, steps=5),
    "deeplab": Preset(3, 1, 4, 67, 3, steps=10),
    "deconvnet": Preset(3, 3, 5, 20, 3, steps=10),
}
"""The parameters of pydensecrf's README, of DeepLab's for Pascal VOC, and of DeconvNet's published
inference."""


def crf(name: str, window: int, solver: str, interrupt: Callable[[], None] = lambda: None) -> Refine:
    """The CRF of a preset. window: side of the square of pixels that one is compared with (solver torch).

    interrupt: called before each step; what it raises ends the refinement.
    """
    preset = PRESETS[name]
    if chosen_solver(solver) == "pydensecrf":
        return lambda images, probabilities: permutohedral(probabilities, colours(images), preset, interrupt)
    return lambda images, probabilities: mean_field(probabilities, colours(images), preset, window, interrupt)


def chosen_solver(wish: str) -> str:
    """The solver for `wish`; "auto" is pydensecrf if it is installed, else torch."""
    there = importlib.util.find_spec("pydensecrf") is not None
    if wish == "pydensecrf" and not there:
        raise ConfigError(
            "predictor.crf_solver=pydensecrf needs the package pydensecrf2; pip install 'segtrain[crf]', "
            "or use predictor.crf_solver=torch"
        )
    return ("pydensecrf" if there else "torch") if wish == "auto" else wish


def colours(images: Tensor) -> Tensor:
    """The images as B×3×H×W float32 colours in 0..255."""
    if images.shape[1] not in (1, 3):
        raise ConfigError(
            f"predictor.crf compares colours, and the images have {images.shape[1]} channels; use "
            f"predictor.crf=null"
        )
    scale = {torch.uint8: 1.0, torch.uint16: 1 / 257}.get(images.dtype, 255.0)
    return (images.float() * scale).expand(-1, 3, -1, -1)


def mean_field(
    probabilities: Tensor,
    rgb: Tensor,
    preset: Preset,
    window: int,
    interrupt: Callable[[], None] = lambda: None,
) -> Tensor:
    """Mean field steps with kernels that end at the border of a window, as in convolutional CRFs (Teichmann &
    Cipolla 2018).

    Exact if the window holds the image; else what the bilateral kernel would reach beyond it is missing.
    Every pixel of the window is one shift of the whole image, so memory is a few times that of the
    probabilities, whatever the window.
    """
    unary = _log(probabilities)
    rest = (*unary.shape[-2:], window // 2)
    gaussian, bilateral = torch.ones_like(rgb[:, :1]), torch.ones_like(rgb[:, :1])
    for here, there, distance in _pairs(*rest):
        near, alike = _kernels(rgb, here, there, distance, preset)
        for sums, kernel in ((gaussian, near), (bilateral, alike)):
            sums[here] += kernel
            sums[there] += kernel
    gaussian, bilateral = (
        (preset.gaussian_weight / gaussian).sqrt_(),
        (preset.bilateral_weight / bilateral).sqrt_(),
    )
    marginals = unary.softmax(1)
    for _ in range(preset.steps):
        interrupt()
        message = unary.clone()
        for here, there, distance in _pairs(*rest):
            near, alike = _kernels(rgb, here, there, distance, preset)
            weight = (gaussian[here] * gaussian[there]).mul_(near) + (
                bilateral[here] * bilateral[there]
            ).mul_(alike)
            message[here].addcmul_(weight, marginals[there])
            message[there].addcmul_(weight, marginals[here])
        marginals = message.softmax(1)
    return marginals


def _log(probabilities: Tensor) -> Tensor:
    if probabilities.shape[1] < 2:
        raise ConfigError(
            "predictor.crf needs the probabilities of two classes or more; use predictor.crf=null"
        )
    return probabilities.float().clamp_min(torch.finfo(torch.float32).tiny).log()


def _pairs(height: int, width: int, radius: int) -> Iterator[tuple[tuple, tuple, int]]:
    """(slices of the first pixels, slices of the second ones, squared distance), so that every two pixels of
    a window meet once."""
    for down in range(min(radius, height - 1) + 1):
        for right in range(-min(radius, width - 1), min(radius, width - 1) + 1):
            if (down, right) > (0, 0):
                columns = (
                    slice(max(0, -right), width - max(0, right)),
                    slice(max(0, right), width + min(0, right)),
                )
                here, there = (
                    (..., slice(0, height - down), columns[0]),
                    (..., slice(down, height), columns[1]),
                )
                yield here, there, down * down + right * right


def _kernels(rgb: Tensor, here: tuple, there: tuple, distance: int, preset: Preset) -> tuple[float, Tensor]:
    """The Gaussian and the bilateral kernel (B×1×h×w) between all pairs of a shift."""
    near = float(np.exp(-distance / (2 * preset.gaussian_xy**2)))
    difference = (rgb[here] - rgb[there]).square_().sum(1, keepdim=True)
    exponent = difference.div_(-2 * preset.bilateral_rgb**2).sub_(distance / (2 * preset.bilateral_xy**2))
    return near, exponent.exp_()


def permutohedral(
    probabilities: Tensor, rgb: Tensor, preset: Preset, interrupt: Callable[[], None] = lambda: None
) -> Tensor:
    """Mean field steps with kernels over the whole image, by pydensecrf's lattice, on the CPU. A pixel is
    among its own neighbours."""
    from pydensecrf.densecrf import DenseCRF2D

    unary = -_log(probabilities)
    result = torch.empty_like(unary)
    for i, energy in enumerate(unary.cpu().numpy()):
        classes, height, width = energy.shape
        field = DenseCRF2D(width, height, classes)
        field.setUnaryEnergy(np.ascontiguousarray(energy.reshape(classes, -1)))
        field.addPairwiseGaussian(sxy=preset.gaussian_xy, compat=preset.gaussian_weight)
        image = np.ascontiguousarray(rgb[i].round().byte().permute(1, 2, 0).cpu().numpy())
        field.addPairwiseBilateral(
            sxy=preset.bilateral_xy, srgb=preset.bilateral_rgb, rgbim=image, compat=preset.bilateral_weight
        )
        marginals, *buffers = field.startInference()
        for _ in range(preset.steps):
            interrupt()
            field.stepInference(marginals, *buffers)
        result[i] = torch.from_numpy(np.array(marginals).reshape(classes, height, width))
    return result
