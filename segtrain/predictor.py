"""Image batches to probabilities. Validation, `evaluate` and `predict` all come this way, so a score cannot differ from a mask.

Everything is a function of one type, B×K×H×W images -> B×C×H×W float32 probabilities, that wraps another one:
whole image, sliding window, average over views.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segtrain import checkpoint as checkpoints
from segtrain.data.reading import read_image
from segtrain.errors import CheckpointError, ConfigError
from segtrain.model import MODEL
from segtrain.sample import Facts, Normalisation
from segtrain.settings import PredictorSettings
from segtrain.task import TASK

Predict = Callable[[Tensor], Tensor]

AUTO_TILE_PIXELS = 4_000_000
"""Images with more pixels go through a sliding window even if none was asked for: memory must not grow with the image."""
AUTO_TILE = 1024

PIXELS = ("uint8", "uint16", "float32", "float64")

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: str):
    """The mixed precision of a forward pass; "none" changes nothing."""
    return nullcontext() if amp == "none" else torch.autocast(device.type, AMP[amp])


def predictor(
    model: nn.Module, normalisation: Normalisation, activate: Predict, settings: PredictorSettings, views=(), between=lambda: None
) -> Predict:
    """The whole way from images (uint8, uint16 or float32) on the model's device to probabilities.

    between: called before each pass of the network; what it raises ends the prediction.
    """
    device = next(model.parameters()).device

    def whole(images: Tensor) -> Tensor:
        between()
        with autocast(device, settings.amp):
            output = model(normalisation(images))
        if output.window is not None:
            raise ConfigError("the network answers for the inner part of its input only; it needs overlapping tiles")
        return activate(output.upsampled())

    predict = average(sliding(whole, settings.tile, settings.overlap), views)

    @torch.inference_mode()
    def evaluated(images: Tensor) -> Tensor:
        was_training = model.training
        model.eval()
        try:
            return predict(images)
        finally:
            model.train(was_training)

    return evaluated


def sliding(predict: Predict, tile: int | None, overlap: float) -> Predict:
    """`predict` on overlapping square tiles; probabilities are averaged where tiles overlap."""
    if not 0 <= overlap < 1:
        raise ConfigError(f"predictor.overlap is {overlap}; allowed: from 0 to below 1")

    def tiled(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        side = tile or (AUTO_TILE if height * width > AUTO_TILE_PIXELS else None)
        if side is None or (height <= side and width <= side):
            return predict(images)
        total = weight = None
        for top, left in itertools.product(_starts(height, side, overlap), _starts(width, side, overlap)):
            part = predict(images[..., top : top + side, left : left + side])
            if total is None:
                total = part.new_zeros(*part.shape[:2], height, width)
                weight = part.new_zeros(1, 1, height, width)
            # Added where it belongs; padding every tile to the whole image costs ten times as much.
            total[..., top : top + side, left : left + side] += part
            weight[..., top : top + side, left : left + side] += 1
        return total.div_(weight)

    return tiled


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin: evenly spaced, at least `overlap` of a tile shared, the last one flush with the end."""
    if length <= tile:
        return [0]
    count = int(np.ceil((length - tile) / max(1, round(tile * (1 - overlap))))) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def average(predict: Predict, views: Sequence[Sequence]) -> Predict:
    """The mean of the probabilities over all combinations of views, one view of each group, mapped back to the image."""
    if not views:
        return predict
    combinations = list(itertools.product(*views))

    def averaged(images: Tensor) -> Tensor:
        total = None
        for combination in combinations:
            part = predict(reduce(lambda x, view: view.forward(x), combination, images))
            part = reduce(lambda p, view: view.backward(p), reversed(combination), part)
            total = part.clone() if total is None else total.add_(part)
        return total.div_(len(combinations))

    return averaged


def choose_device(wish: str) -> torch.device:
    """auto: cuda, then mps, then cpu."""
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(wish)
    except RuntimeError as error:
        raise ConfigError(f"device is {wish!r}; allowed: auto, cpu, cuda, cuda:1 and so on, mps") from error
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}.get(device.type, 0)
    if (device.index or 0) >= there:
        raise ConfigError(f"device={wish}: this machine has {there} of them; use device=auto")
    return device


def build_from(checkpoint: Path, model_config: dict | None = None) -> tuple[nn.Module, Facts, dict]:
    """The network of a checkpoint with its weights, on the CPU; its facts; its description.

    model_config: overrides the saved options of the network (its output stride, say).
    """
    description = checkpoints.describe(checkpoint)
    facts = Facts.from_plain(description["facts"])
    config = without_weights(model_config or description["config"]["model"])
    task = TASK.build(description["config"]["task"])
    model = MODEL.build(config, out_channels=task.out_channels(facts), in_channels=facts.channels, num_classes=facts.num_classes)
    load_exactly(model, checkpoints.load_weights(checkpoint), str(checkpoint))
    return model.eval(), facts, description


def without_weights(model_config: dict) -> dict:
    """The network's options for building it when its weights come from a checkpoint."""
    return {**model_config, "weights": "none"} if "weights" in MODEL.options(model_config["name"]) else dict(model_config)


def load_exactly(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """All tensors into the model, or a CheckpointError that says which do not fit."""
    own = model.state_dict()
    wrong = [name for name in own if name not in weights] + [name for name in weights if name not in own]
    wrong += [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if wrong:
        raise CheckpointError(
            f"{source} does not fit the network: {len(wrong)} of {len(own)} tensors differ, the first is {wrong[0]}; "
            "use the model options that the run was trained with"
        )
    model.load_state_dict(weights)


class Mask:
    """`mask(image)`: H×W classes of one image, an H×W×K array (RGB), a PIL image or a path."""

    def __init__(self, predict: Predict, decide: Predict, facts: Facts, device: torch.device):
        self._predict, self._decide, self.facts, self._device = predict, decide, facts, device

    def probabilities(self, image) -> Tensor:
        """1×C×H×W float32 on the device."""
        pixels = self._pixels(image)
        return self._predict(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].to(self._device))

    def __call__(self, image) -> np.ndarray:
        return self.decide(self.probabilities(image))

    def decide(self, probabilities: Tensor) -> np.ndarray:
        classes = self._decide(probabilities)[0].cpu().numpy()
        return classes.astype(np.uint8) if classes.dtype.kind in "iu" else classes

    def _pixels(self, image) -> np.ndarray:
        pixels = read_image(image) if isinstance(image, (str, Path)) else np.asarray(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if pixels.ndim != 3 or pixels.shape[2] != self.facts.channels:
            raise ConfigError(f"the image has shape {pixels.shape}; the network wants height, width, {self.facts.channels}")
        if pixels.dtype.name not in PIXELS:
            raise ConfigError(f"the image has pixels of {pixels.dtype}; allowed: {', '.join(PIXELS)} (floats on the scale 0..1)")
        return pixels


def load(run: str | Path, checkpoint: str = "best", device: str = "auto", settings: PredictorSettings | None = None, views=()) -> Mask:
    """The network of a run, ready for images: `mask = load("outputs/baseline")("photo.jpg")`."""
    place = choose_device(device)
    model, facts, description = build_from(checkpoints.find(run, checkpoint))
    task = TASK.build(description["config"]["task"])
    return Mask(
        predictor(model.to(place), facts.normalisation, task.activate, settings or PredictorSettings(), views), task.decide, facts, place
    )
