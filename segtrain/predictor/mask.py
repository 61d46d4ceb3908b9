"""`load(run)(image)`: the Python interface to a trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segtrain.checkpoint.reading import read
from segtrain.checkpoint.restore import build_from
from segtrain.errors import ConfigError
from segtrain.options import path_options
from segtrain.predictor.device import choose_device
from segtrain.predictor.inference import Inference, saved_inference
from segtrain.predictor.inputs import READ_RGB, pixels_of, reader_of
from segtrain.predictor.predictor import Predictor
from segtrain.predictor.tiles import Columns, Predict
from segtrain.predictor.views import split_votes
from segtrain.run.saved import relocated
from segtrain.sample import Facts
from segtrain.settings import PredictorSettings
from segtrain.task import task_of
from segtrain.task.task import Task


class Mask:
    """The classes of images, by a trained network: `mask(image)`. `facts` has their names and colours.

    An image is a path, a PIL image of any mode (read as its file would be: upright, grey repeated, alpha
    dropped), or an array: H×W×K (K channels; three are RGB) or H×W grey, of uint8, uint16 or floats, RGB
    on the scale 0..1.
    ConfigError if it is none of these, SizeError if the network takes no images of its size, DataError for a
    file that cannot be decoded. Neither torch's random state nor the network is changed by a call.
    """

    def __init__(
        self,
        predict: Predictor,
        decide: Predict,
        facts: Facts,
        device: torch.device,
        read: Callable[[str], np.ndarray] = READ_RGB,
        votes: bool = False,
    ):
        """predict: images -> probabilities. decide: probabilities -> predictions (`Task.decide`). read: path
        of an image -> H×W×K pixels. votes: whether `predict` gives those of the views too."""
        self._predict, self._decide, self.facts, self._device = predict, decide, facts, device
        self._read, self._votes = read, votes

    def __call__(self, image) -> np.ndarray:
        """H×W uint8 class indices, or float32 values where the task predicts values; H×W×T for T of them."""
        return self._predictions([self._pixels(image)])[0]

    def batch(self, images: Iterable, size: int = 8) -> list[np.ndarray]:
        """The H×W predictions of each image, in order. Up to `size` images of one shape and dtype go through
        the network together, which changes probabilities by no more than rounding."""
        if size < 1:
            raise ConfigError(f"size is {size}; allowed: an integer from 1")
        alike: dict[tuple, list[tuple[int, np.ndarray]]] = {}
        found: dict[int, np.ndarray] = {}

        def run(group: list[tuple[int, np.ndarray]]) -> None:
            places, pixels = zip(*group, strict=True)
            found.update(zip(places, self._predictions(pixels), strict=True))

        for place, image in enumerate(images):
            pixels = self._pixels(image)
            group = alike.setdefault((pixels.shape, pixels.dtype), [])
            group.append((place, pixels))
            if len(group) == size:
                run(alike.pop((pixels.shape, pixels.dtype)))
        for group in alike.values():
            run(group)
        return [found[place] for place in sorted(found)]

    def probabilities(self, image) -> Tensor:
        """1×C×H×W float32 probabilities on the device. Raises what a call raises."""
        return self._without_votes(self._predict(self._stacked([self._pixels(image)])))

    def strips(self, image) -> Iterator[Tensor]:
        """The probabilities as consecutive strips of rows, 1×C×h×W from top to bottom, each yielded once
        complete."""
        return map(self._without_votes, self._predict.strips(self._stacked([self._pixels(image)])))

    def voted(self, image) -> Iterator[tuple[Tensor, Tensor]]:
        """(probabilities, votes of the views) as consecutive strips of rows, both 1×C×h×W; for a predictor
        with votes. See `segtrain.predictor.views.disagreement`."""
        return map(split_votes, self._predict.strips(self._stacked([self._pixels(image)])))

    def strips_of(self, images, columns: Columns) -> Iterator[np.ndarray]:
        """The predictions of some columns of a raster as consecutive strips of rows, h×w. images:
        `segtrain.predictor.raster_tiles.RasterTiles`."""
        return map(self.decide, self._predict.strips(images.on(self._device), columns))

    def decide(self, probabilities: Tensor) -> np.ndarray:
        """H×W (H×W×T) predictions of an image's 1×C×H×W probabilities, or of a strip of them."""
        return _channels_last(self._decided(probabilities).cpu().numpy())[0]

    def _predictions(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """B×H×W, or B×H×W×T for a task of T values a pixel, of B images of one shape and dtype."""
        decided = self._predict.decided(
            lambda predicted: self._decided(self._without_votes(predicted)), self._stacked(images)
        )
        return _channels_last(decided.cpu().numpy())

    def _without_votes(self, predicted: Tensor) -> Tensor:
        return split_votes(predicted)[0] if self._votes else predicted

    def _decided(self, probabilities: Tensor) -> Tensor:
        classes = self._decide(probabilities)
        return classes if classes.is_floating_point() else classes.to(torch.uint8)

    def _pixels(self, image) -> np.ndarray:
        return pixels_of(image, self.facts.channels, self._read)

    def _stacked(self, images: Sequence[np.ndarray]) -> Tensor:
        """B×K×H×W on the device."""
        return torch.from_numpy(np.stack(images)).to(self._device)


def mask_of(
    model: nn.Module,
    facts: Facts,
    task: Task,
    inference: Inference,
    device: torch.device,
    interrupt=lambda: None,
    read: Callable[[str], np.ndarray] = READ_RGB,
    votes: bool = False,
) -> Mask:
    """A `Mask` of a network that is on its device. interrupt: called before each forward pass. read: path of
    an image -> H×W×K pixels. votes: for `Mask.voted`; ConfigError if there are no views."""
    predict = inference.predictor_of(model, facts, task, device, interrupt, votes)
    return Mask(predict, task.decide, facts, device, read, votes)


def load(
    run: str | Path,
    checkpoint: str | int = "best",
    device: str = "auto",
    settings: PredictorSettings | Mapping | None = None,
    views: Mapping | str | list[str] | tuple[str, ...] | None = None,
    model_options: Mapping | None = None,
) -> Mask:
    """The network of a run, ready for images: `mask = load("outputs/baseline")("photo.jpg")`.

    By default the answer is that of `segtrain predict`: tiles, views, mixed precision, CRF and second network
    are those that the run was trained with.
    settings: {key: value} replaces single keys of the section `predictor`, such as {"tile": 512}; a
    PredictorSettings replaces all of it. views: names or {name: {option: value}}, which replace the saved
    ones; () for none.
    model_options: options of the network that change no weights, such as {"output_stride": 8}.
    ConfigError for what cannot be chosen so, CheckpointError for a run whose files cannot be used.
    """
    place = choose_device(device)
    found = read(run, checkpoint)
    model, facts = build_from(found, dict(model_options or {}))
    config = found.description["config"]
    saved = config.get("predictor") or {}
    own = relocated(saved, saved, path_options(PredictorSettings), Path(run))
    inference = saved_inference({**config, "predictor": own}, settings, views)
    task, reader = task_of(found.description), reader_of(config["data"])
    return mask_of(model.to(place), facts, task, inference, place, read=reader)


def _channels_last(decided: np.ndarray) -> np.ndarray:
    """B×T×H×W as B×H×W×T; B×H×W as it is."""
    return decided if decided.ndim == 3 else decided.transpose(0, 2, 3, 1)
