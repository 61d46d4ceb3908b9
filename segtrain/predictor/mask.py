"""`load(run)(image)`: the Python interface to a trained network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segtrain import checkpoint as checkpoints
from segtrain.checkpoint.restore import build_from
from segtrain.data.reading import read_image
from segtrain.errors import ConfigError
from segtrain.predictor.device import choose_device
from segtrain.predictor.ensemble import ensemble_of
from segtrain.predictor.predictor import Predictor, check_target, predictor
from segtrain.predictor.tiles import Predict
from segtrain.sample import Facts
from segtrain.settings import PredictorSettings
from segtrain.task import TASK

PIXELS = ("uint8", "uint16", "float32", "float64")


class Mask:
    """`mask(image)`: H×W classes of one image, an H×W×K array (RGB), a PIL image or a path."""

    def __init__(self, predict: Predictor, decide: Predict, facts: Facts, device: torch.device):
        self._predict, self._decide, self.facts, self._device = predict, decide, facts, device

    def probabilities(self, image) -> Tensor:
        """1×C×H×W float32 on the device."""
        return self._predict(self._images(image))

    def __call__(self, image) -> np.ndarray:
        images = self._images(image)
        # Strip by strip: the probabilities of all classes would take many times the image's memory.
        decided = [self._decided(strip) for strip in self._predict.strips(images)]
        return channels_last(np.concatenate(decided, axis=-2))

    def decide(self, probabilities: Tensor) -> np.ndarray:
        """H×W, or H×W×T for a task of T values a pixel, of 1×C×H×W probabilities; integers as uint8."""
        return channels_last(self._decided(probabilities))

    def _decided(self, probabilities: Tensor) -> np.ndarray:
        decided = self._decide(probabilities)[0].cpu().numpy()
        return decided.astype(np.uint8) if decided.dtype.kind in "iu" else decided

    def _images(self, image) -> Tensor:
        """1×K×H×W on the device, of an array, a PIL image or a path."""
        pixels = read_image(image) if isinstance(image, (str, Path)) else np.asarray(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if pixels.ndim != 3 or pixels.shape[2] != self.facts.channels:
            raise ConfigError(
                f"the image has shape {pixels.shape}; the network wants height, width, {self.facts.channels}"
            )
        if pixels.dtype.name not in PIXELS:
            raise ConfigError(
                f"the image has pixels of {pixels.dtype}; allowed: {', '.join(PIXELS)} (floats on the "
                f"scale 0..1)"
            )
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].to(self._device)


def load(
    run: str | Path,
    checkpoint: str = "best",
    device: str = "auto",
    settings: PredictorSettings | None = None,
    views=(),
    model_options: dict | None = None,
) -> Mask:
    """The network of a run, ready for images: `mask = load("outputs/baseline")("photo.jpg")`.

    model_options: options of the network that change no weights, such as {"output_stride": 8}.
    """
    place, settings = choose_device(device), settings or PredictorSettings()
    model, facts, description = build_from(checkpoints.find(run, checkpoint), model_options)
    task = TASK.build(description["config"]["task"])
    check_target(task.target, settings)
    ensemble = ensemble_of(settings, facts, place)
    return Mask(
        predictor(model.to(place), facts.normalisation, task.activate, settings, views, ensemble=ensemble),
        task.decide,
        facts,
        place,
    )


def channels_last(decided: np.ndarray) -> np.ndarray:
    """T×H×W as H×W×T; H×W as it is."""
    return decided if decided.ndim == 2 else decided.transpose(1, 2, 0)
