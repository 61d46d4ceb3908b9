"""`load(run)(image)`: the Python interface to a trained network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segtrain import checkpoint as checkpoints
from segtrain.checkpoint.restore import build_from
from segtrain.data.reading import read_image
from segtrain.errors import ConfigError
from segtrain.predictor.device import choose_device
from segtrain.predictor.prediction import Prediction, saved_prediction
from segtrain.predictor.predictor import Predictor
from segtrain.predictor.tiles import Predict
from segtrain.sample import Facts
from segtrain.settings import PredictorSettings
from segtrain.task import TASK
from segtrain.task.semantic import Task

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
        return np.concatenate([self.decide(strip) for strip in self._predict.strips(images)], axis=-2)

    def decide(self, probabilities: Tensor) -> np.ndarray:
        classes = self._decide(probabilities)[0].cpu().numpy()
        return classes.astype(np.uint8) if classes.dtype.kind in "iu" else classes

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


def mask_of(
    model: nn.Module,
    facts: Facts,
    task: Task,
    prediction: Prediction,
    device: torch.device,
    between=lambda: None,
) -> Mask:
    """A network on its device, ready for images. between: called before each pass of the network."""
    return Mask(prediction.of(model, facts, task, device, between), task.decide, facts, device)


def load(
    run: str | Path,
    checkpoint: str | int = "best",
    device: str = "auto",
    settings: PredictorSettings | Mapping | None = None,
    views: Mapping | str | list[str] | tuple[str, ...] | None = None,
    model_options: Mapping | None = None,
) -> Mask:
    """The network of a run, ready for images: `mask = load("outputs/baseline")("photo.jpg")`.

    Without more words the answer is that of `segtrain predict`: tiles, views, mixed precision, CRF and second
    network are those that the run was trained with.
    settings: {key: value} to change of the section `predictor`, such as {"tile": 512}, or a PredictorSettings
    in place of all of it. views: in place of the saved ones, names or {name: {option: value}}; () for none.
    model_options: options of the network that change no weights, such as {"output_stride": 8}.
    ConfigError for what cannot be chosen so, CheckpointError for a run whose files cannot be used.
    """
    place = choose_device(device)
    model, facts, description = build_from(checkpoints.find(run, checkpoint), dict(model_options or {}))
    config = description["config"]
    prediction = saved_prediction(config, settings, views)
    return mask_of(model.to(place), facts, TASK.build(config["task"]), prediction, place)
