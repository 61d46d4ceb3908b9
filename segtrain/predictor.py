"""Image batches to probabilities. Validation, `evaluate` and `predict` all come this way, so a score cannot
differ from a mask.

Everything is a function of one type, B×K×H×W images -> B×C×H×W float32 probabilities, that wraps another one:
one pass of the network, boxes, a second network, tiles, average over views, CRF.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segtrain import checkpoint as checkpoints
from segtrain.boxes import check_box_sides, merged_over_boxes
from segtrain.crf import Refine, chosen_solver, crf
from segtrain.data.reading import read_image
from segtrain.errors import CheckpointError, ConfigError, SegtrainError
from segtrain.model import MODEL
from segtrain.model.encoder import at_output_stride
from segtrain.model.limits import as_typed, typed
from segtrain.model.network import Network
from segtrain.model.sides import check_side
from segtrain.sample import Facts, Normalisation
from segtrain.settings import PredictorSettings
from segtrain.task import TASK
from segtrain.tiles import Predict, Strips, assembled, overlap_tile, sliding

PIXELS = ("uint8", "uint16", "float32", "float64")

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: str):
    """The mixed precision of a forward pass; "none" changes nothing."""
    return nullcontext() if amp == "none" else torch.autocast(device.type, AMP[amp])


class Predictor:
    """Images (uint8, uint16 or float32) on the model's device -> B×C×H×W probabilities, with the model in
    evaluation mode.

    strips: the same as B×C×h×W of h rows after the other, as soon as each is done. They come one by one where
    tiles are enough to make them; views of the image and a CRF need all of it.
    """

    def __init__(self, model: Network, strips: Strips):
        self._model, self._strips = model, strips

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return assembled(self.strips)(images)

    @torch.inference_mode()
    def strips(self, images: Tensor) -> Iterator[Tensor]:
        was_training = self._model.training
        self._model.eval()
        try:
            yield from self._strips(images)
        finally:
            self._model.train(was_training)


@dataclass(frozen=True)
class Ensemble:
    """A second network. scores: images -> its raw B×C×H×W scores. run, step: where it is from."""

    scores: Predict
    run: str
    step: int


def predictor(
    model: Network,
    normalisation: Normalisation,
    activate: Predict,
    settings: PredictorSettings,
    views=(),
    between=lambda: None,
    ensemble: Ensemble | None = None,
) -> Predictor:
    """The whole way from images to probabilities.

    between: called before each pass of the network; what it raises ends the prediction.
    """
    # Not every network has something to train.
    device = next(itertools.chain(model.parameters(), model.buffers())).device
    check_settings(model, settings)
    margin = model.margin

    def scores(normalised: Tensor) -> Tensor:
        between()
        with autocast(device, settings.amp):
            output = model(normalised)
        if output.window is not None and not margin:
            raise ConfigError(
                "the network answers for the inner part of its input only; it needs overlapping tiles"
            )
        return output.upsampled()

    if settings.boxes:
        scores = merged_over_boxes(scores, settings.box_sides, settings.box_input)

    def whole(images: Tensor) -> Tensor:
        own = scores(normalisation(images))
        return (
            activate(own)
            if ensemble is None
            else _merged(own, ensemble.scores(images), activate, settings.ensemble_merge)
        )

    if margin:
        strips = overlap_tile(whole, margin, model.tile_sides, settings.tile)
    else:
        strips = sliding(whole, settings.tile, settings.overlap)
    if views:
        strips = _in_one(average(assembled(strips), views))
    if settings.crf:
        strips = _in_one(
            refined(assembled(strips), crf(settings.crf, settings.crf_window, settings.crf_solver, between))
        )
    return Predictor(model, strips)


def check_settings(model: Network, settings: PredictorSettings) -> None:
    """ConfigError for settings that this network cannot be run with."""
    margin = model.margin
    if margin and (settings.boxes or settings.ensemble):
        key = "boxes" if settings.boxes else "ensemble"
        raise ConfigError(
            f"predictor.{key} needs a network that answers for all of its input, not for the inner part "
            f"only; use null"
        )
    check_box_sides(settings.box_sides)
    if settings.boxes:
        check_side(model, "predictor.box_input", settings.box_input)
    elif settings.tile is not None and not margin:
        check_side(model, "predictor.tile", settings.tile)
    if settings.boxes and model.log_probabilities:
        raise ConfigError(
            f"predictor.boxes={settings.boxes} merges scores from 0 on, and this network's are "
            f"log-probabilities, none above 0; use null"
        )
    _check_merge(model, "this network", settings)


def _check_merge(model: Network, which: str, settings: PredictorSettings) -> None:
    """ConfigError if nothing would be left of this network's scores: the product takes those above 0."""
    if settings.ensemble and settings.ensemble_merge == "product" and model.log_probabilities:
        raise ConfigError(
            f"predictor.ensemble_merge=product takes scores above 0, and those of {which} are "
            f"log-probabilities, none above 0; "
            "use predictor.ensemble_merge=mean"
        )


def _in_one(predict: Predict) -> Strips:
    return lambda images: iter([predict(images)])


def _merged(own: Tensor, other: Tensor, activate: Predict, merge: str) -> Tensor:
    """Probabilities of two networks' scores: of the product of what is above 0 in both, as DeconvNet's code
    joins its scores with those of an FCN-8s, or the mean of both probabilities, as its paper says (Noh et al.
    2015, sec. 4.4)."""
    if merge == "mean":
        return (activate(own) + activate(other)) / 2
    return activate(own.clamp_min(0) * other.clamp_min(0))


def refined(predict: Predict, refine: Refine) -> Predict:
    """`predict` and then a function of the images and their probabilities."""
    return lambda images: refine(images, predict(images))


def average(predict: Predict, views: Sequence[Sequence]) -> Predict:
    """The mean of the probabilities over all combinations of views, one view of each group, mapped back to
    the image."""
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


def ensemble_of(settings: PredictorSettings, facts: Facts, device: torch.device) -> Ensemble | None:
    """The network of `predictor.ensemble`, None if there is none. ConfigError if it knows other classes or
    images."""
    if settings.ensemble is None:
        return None
    where = f"predictor.ensemble={settings.ensemble}"
    model, other, description = build_from(
        checkpoints.find(settings.ensemble, "best", key="predictor.ensemble")
    )
    if (other.classes, other.channels) != (facts.classes, facts.channels):
        mine, its = (
            f"{facts.channels} channels and the classes {', '.join(facts.classes)}"
            for facts in (facts, other)
        )
        raise ConfigError(
            f"{where} was trained on images of {its}, the run on {mine}; use a run with the same"
        )
    if model.margin:
        raise ConfigError(
            f"{where} answers for the inner part of its input only; use a run of another network"
        )
    _check_merge(model, where, settings)
    model.to(device)

    def scores(images: Tensor) -> Tensor:
        with autocast(device, settings.amp):
            output = model(other.normalisation(images))
        return output.upsampled()

    return Ensemble(scores, settings.ensemble, description["step"])


def protocol(model: Network, settings: PredictorSettings, ensemble: Ensemble | None) -> dict:
    """How probabilities are made, for the record beside scores."""
    made_by_crf = None
    if settings.crf:
        solver = chosen_solver(settings.crf_solver)
        made_by_crf = {
            "preset": settings.crf,
            "solver": solver,
            "window": settings.crf_window if solver == "torch" else None,
        }
    return {
        "output_stride": model.output_stride,
        "tile": settings.tile,
        "overlap": settings.overlap if settings.tile else None,
        "amp": settings.amp,
        "boxes": {"kind": settings.boxes, "sides": settings.box_sides, "input": settings.box_input}
        if settings.boxes
        else None,
        "ensemble": ensemble
        and {"run": ensemble.run, "step": ensemble.step, "merge": settings.ensemble_merge},
        "crf": made_by_crf,
    }


def choose_device(wish: str) -> torch.device:
    """auto: cuda, then mps, then cpu."""
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(wish)
    except RuntimeError as error:
        raise ConfigError(f"device is {wish!r}; allowed: auto, cpu, cuda, cuda:1 and so on, mps") from error
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}.get(
        device.type, 0
    )
    if (device.index or 0) >= there:
        raise ConfigError(f"device={wish}: this machine has {there} of them; use device=auto")
    return device


def build_from(checkpoint: Path, options: dict | None = None) -> tuple[Network, Facts, dict]:
    """The network of a checkpoint with its weights, on the CPU; its facts; its description.

    options: of the network, all or some, in place of those that it was trained with: an output stride, which
    rates of dilation follow, or anything else that changes neither name nor shape of a tensor. ConfigError
    names what does.
    """
    description = checkpoints.describe(checkpoint)
    facts = Facts.from_plain(description["facts"])
    task = TASK.build(description["config"]["task"])
    saved, changed = _options_of(description["config"]["model"], options or {})
    output_stride = changed.pop("output_stride", None)
    config = without_weights({**saved, **changed, "name": saved["name"]})
    model = MODEL.build(
        config,
        out_channels=task.out_channels(facts),
        in_channels=facts.channels,
        num_classes=facts.num_classes,
    )
    for key in changed.keys() & {"name", "weights"}:
        advice = _of_training({key: changed[key]}, saved, model)
        raise ConfigError(f"model.{key}={as_typed(changed[key])} cannot change here; {advice}")
    hint = (
        f"; {_of_training(changed, saved, model)}"
        if changed
        else "; use the model options that the run was trained with"
    )
    load_exactly(
        model,
        checkpoints.load_weights(checkpoint),
        str(checkpoint),
        hint,
        ConfigError if changed else CheckpointError,
    )
    if output_stride is not None:
        _refuse_what_follows(model, output_stride, changed)
        model = at_output_stride(model, output_stride)
    return model.eval(), facts, description


def _options_of(config: dict, wanted: dict) -> tuple[dict, dict]:
    """(the network's name and options, those of `wanted` that are different)."""
    name, given = MODEL.check(config)
    saved = {"name": name, **{key: option.default for key, option in MODEL.options(name).items()}, **given}
    wanted = MODEL.check({**config, **wanted, "name": name})[1] | {"name": wanted.get("name", name)}
    return saved, {key: value for key, value in wanted.items() if value != saved[key]}


def _of_training(changed: dict, saved: dict, model: Network) -> str:
    new, old = typed(changed), typed({key: saved[key] for key in changed})
    # A network that is fitted takes nothing over from another run.
    way_out = (
        "train a new run with these options" if model.fits_itself else f"`segtrain train init=RUN {new}`"
    )
    return f"the weights were trained with {old}, and {new} needs others: {way_out}"


def _refuse_what_follows(model: Network, output_stride: int, changed: dict) -> None:
    if model.options is None:
        return
    before, after = vars(model.options), vars(model.options.at(output_stride))
    for key in changed:
        if before.get(key) != after.get(key):
            raise ConfigError(
                f"model.{key} follows model.output_stride={output_stride}; set only one of them"
            )


def without_weights(model_config: dict) -> dict:
    """The network's options for building it when its weights come from a checkpoint."""
    return (
        {**model_config, "weights": "none"}
        if "weights" in MODEL.options(model_config["name"])
        else dict(model_config)
    )


def load_exactly(
    model: Network, weights: dict[str, Tensor], source: str, hint: str, error: type[SegtrainError]
) -> None:
    """All tensors into the model, or an error that says which do not fit."""
    model.resize_for(weights)
    own = model.state_dict()
    wrong = [name for name in own if name not in weights] + [name for name in weights if name not in own]
    wrong += [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if wrong:
        raise error(
            f"{source} does not fit the network: {len(wrong)} of {len(own)} tensors differ, the first is "
            f"{wrong[0]}{hint}"
        )
    model.load_state_dict(weights)


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
    ensemble = ensemble_of(settings, facts, place)
    return Mask(
        predictor(model.to(place), facts.normalisation, task.activate, settings, views, ensemble=ensemble),
        task.decide,
        facts,
        place,
    )
