"""Blur, noise, weather, cutout and elastic deformation from albumentations."""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from segtrain.errors import ConfigError, nearest, unknown_key
from segtrain.sample import IGNORE, Sample, no_label

ON_IMAGES = (
    "AdditiveNoise",
    "AdvancedBlur",
    "AutoContrast",
    "Blur",
    "CLAHE",
    "ChannelDropout",
    "ChannelShuffle",
    "ChromaticAberration",
    "ColorJitter",
    "Defocus",
    "Downscale",
    "Emboss",
    "Equalize",
    "FancyPCA",
    "GaussNoise",
    "GaussianBlur",
    "GlassBlur",
    "HueSaturationValue",
    "ISONoise",
    "Illumination",
    "ImageCompression",
    "InvertImg",
    "MedianBlur",
    "MotionBlur",
    "MultiplicativeNoise",
    "PlanckianJitter",
    "PlasmaBrightnessContrast",
    "PlasmaShadow",
    "Posterize",
    "RGBShift",
    "RandomBrightnessContrast",
    "RandomFog",
    "RandomGamma",
    "RandomGravel",
    "RandomRain",
    "RandomShadow",
    "RandomSnow",
    "RandomSunFlare",
    "RandomToneCurve",
    "RingingOvershoot",
    "SaltAndPepper",
    "Sharpen",
    "ShotNoise",
    "Solarize",
    "Spatter",
    "Superpixels",
    "ToGray",
    "ToSepia",
    "UnsharpMask",
    "ZoomBlur",
)
ON_IMAGES_AND_MASKS = (
    "CoarseDropout",
    "D4",
    "ElasticTransform",
    "GridDistortion",
    "GridDropout",
    "HorizontalFlip",
    "OpticalDistortion",
    "Perspective",
    "PixelDropout",
    "RandomRotate90",
    "ThinPlateSpline",
    "Transpose",
    "VerticalFlip",
)
ALLOWED = tuple(sorted(ON_IMAGES + ON_IMAGES_AND_MASKS))
DEFAULT = {"GaussianBlur": {"p": 0.2}, "GaussNoise": {"p": 0.2}}


def pixel(transforms: dict[str, dict[str, Any]] | None = None, ignore_index: int = IGNORE) -> Pixel:
    """Blur, noise, weather, cutout, elastic deformation: transforms of albumentations, by name, in the
    order given.

    Masks are resampled nearest; pixels that move in from outside the image are unlabelled. Of images that
    are not 8-bit RGB, only the geometry is changed: the transforms that act on masks too.

    Options:
        transforms: name of the transform to its keywords, e.g. {MotionBlur: {p: 0.3}, GaussNoise: {}}; null:
            GaussianBlur and GaussNoise, one image in five each
    """
    transforms = DEFAULT if transforms is None else transforms
    for name in transforms:
        if name not in ALLOWED:
            raise ConfigError(
                f"augmentation.pixel.transforms has {name!r}{nearest(name, ALLOWED)}; allowed: "
                f"{', '.join(ALLOWED)}"
            )
    library = _albumentations()
    made = {
        name: _made(library, name, dict(options or {}), ignore_index) for name, options in transforms.items()
    }
    geometric = [one for name, one in made.items() if name in ON_IMAGES_AND_MASKS]
    return Pixel(
        _composed(library, list(made.values())),
        _composed(library, geometric) if geometric else None,
        ignore_index,
    )


def _composed(library, transforms: list):
    return library.Compose(transforms, additional_targets={"instances": "mask", "outside": "mask"})


def _albumentations():
    """albumentations, imported on first use (it takes seconds)."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would look for newer versions on the internet
    import importlib.metadata

    foreign = [d for d in ("albumentationsx", "AlbumentationsX") if _installed(importlib.metadata, d)]
    if foreign:
        raise ConfigError(
            "augmentation.pixel found albumentationsx (AGPL, sends telemetry), which takes the import name "
            "of albumentations; "
            "run pip uninstall albumentationsx && pip install albumentations==2.0.8"
        )
    import albumentations

    return albumentations


def _installed(metadata, name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _made(library, name: str, options: dict, ignore_index: int):
    """One transform. ConfigError for unknown keywords and values, of which the library only warns."""
    where = f"augmentation.pixel.transforms.{name}"
    factory = getattr(library, name)
    known = [key for key in inspect.signature(factory).parameters if key != "mask_interpolation"]
    for key in options:
        if key not in known:
            raise unknown_key(f"{where}.{key}", name, known)
    if (
        name in ON_IMAGES_AND_MASKS
        and "fill_mask" in known
        and inspect.signature(factory).parameters["fill_mask"].default is not None
    ):
        options.setdefault("fill_mask", ignore_index)  # the library's default, 0, is a class
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        return factory(**options)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where} is {options!r}, which {name} refuses: {reason}") from error


@dataclass
class Pixel:
    """The operation made by `pixel`."""

    output_size: ClassVar[None] = None
    needs_instances: ClassVar[bool] = False
    compose: Any
    geometric: Any
    ignore_index: int

    def __call__(self, sample: Sample, rng: np.random.Generator, draw: Callable | None = None) -> Sample:
        seed = int(rng.integers(2**63))
        image, target = sample.image, sample.target
        compose = self.compose if image.dtype == np.uint8 and image.shape[2] == 3 else self.geometric
        if compose is None:
            return sample
        # Both generators are shared by all transforms; an integer seed would give each transform the same
        # random numbers.
        compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        given = {
            "image": image.copy(),
            "mask": target,
        }  # some transforms write into what they are given
        if sample.instances is not None:
            given["instances"] = sample.instances
        # The library fills masks of several channels in the first of every four channels only.
        fills_all = target is None or (target.ndim == 2 and target.dtype.kind != "f")
        if sample.instances is not None or not fills_all:
            given["outside"] = np.zeros(image.shape[:2], np.uint8)
        found = compose(**{key: value for key, value in given.items() if value is not None})
        target, instances = found.get("mask"), found.get("instances")
        if instances is not None:
            instances = np.where(found["outside"] == 0, instances, 0).astype(sample.instances.dtype)
        if not fills_all:
            target = _filled(target, found["outside"])
        return replace(sample, image=found["image"], target=target, instances=instances)


def _filled(target: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """The target, H×W or H×W×T, with the value of `fill` (H×W uint8) in all its channels where this is not 0;
    measured values are unknown there."""
    fill = fill if target.ndim == 2 else fill[..., None]
    value = no_label(target.dtype) if target.dtype.kind == "f" else fill
    return np.where(fill != 0, value, target).astype(target.dtype)
