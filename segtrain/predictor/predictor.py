"""Image batches to probabilities. Validation, `evaluate` and `predict` share this path, so a score
cannot differ from a mask.

Everything is a function of one type, B×K×H×W images -> B×C×H×W float32 probabilities, that wraps another one:
one forward pass, boxes, a second network, average over views, CRF, tiles. Where predictor.tile is set, views
and CRF are computed on each tile, so that memory is bounded by the tile and not by the image; where it is
not, they are computed on the whole image.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.model.parts.sides import check_side
from segtrain.predictor.boxes import check_box_sides, merged_over_boxes
from segtrain.predictor.crf import Refine, chosen_solver, crf
from segtrain.predictor.device import autocast
from segtrain.predictor.tiles import Columns, Predict, Strips, assembled, overlap_tile, sliding
from segtrain.predictor.views import Merge, average, split_votes
from segtrain.sample import Facts, Normalisation, Target
from segtrain.settings import PredictorSettings


class Predictor:
    """B×K×H×W images (uint8, uint16 or float32) on the model's device -> B×C×H×W float32 probabilities.

    The model runs in evaluation mode without gradients; its own modes and the grad mode are restored.
    """

    def __init__(self, model: Network, strips: Strips):
        self._model, self._strips = model, strips

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return assembled(self.strips)(images)

    @torch.inference_mode()
    def decided(self, decide: Predict, images: Tensor) -> Tensor:
        """B×H×W predictions. decide: probabilities -> predictions, pixel by pixel. It is applied strip by
        strip, so the probabilities of the whole image are never in memory at once."""
        return torch.cat([decide(strip) for strip in self.strips(images)], dim=-2)

    @torch.inference_mode()
    def strips(self, images: Tensor, columns: Columns | None = None) -> Iterator[Tensor]:
        """The probabilities as consecutive rows, B×C×h×W from top to bottom, each strip as soon as it is
        complete. There is a single one where the image fits in one tile, and where views or a CRF are
        computed on the whole image. columns: those that are predicted, equal to the same ones of all; None:
        all."""
        # Per module: frozen batch-norm stays in evaluation mode during training.
        was_training = {module: module.training for module in self._model.modules()}
        self._model.eval()
        try:
            yield from self._strips(images, columns)
        finally:
            for module, flag in was_training.items():
                module.training = flag


@dataclass(frozen=True)
class Ensemble:
    """A further network. scores: images -> its B×C×H×W logits. facts: of its data set. run, step: of its
    checkpoint. activation: of its task. task: name of its task."""

    scores: Predict
    facts: Facts
    run: str
    step: int
    activation: str = "softmax"
    task: str = "semantic"

    def check_same(self, facts: Facts, activation: str, task: str) -> None:
        """ConfigError if its task, classes, channels or activation differ from those of the run."""
        if self.task != task:
            raise ConfigError(
                f"predictor.ensemble={self.run} was trained for task={self.task}, the run for task={task}; "
                f"use a run of the same"
            )
        if self.activation != activation:
            raise ConfigError(
                f"predictor.ensemble={self.run} was trained for a {self.activation} (task.activation), the "
                f"run for a {activation}; use a run with the same"
            )
        if (self.facts.classes, self.facts.channels) != (facts.classes, facts.channels):
            mine, its = (
                f"{one.channels} channels and the classes {', '.join(one.classes)}"
                for one in (facts, self.facts)
            )
            raise ConfigError(
                f"predictor.ensemble={self.run} was trained on images of {its}, the run on {mine}; use a run "
                f"with the same"
            )


def predictor(
    model: Network,
    normalisation: Normalisation,
    activate: Callable[[Tensor, Tensor], Tensor],
    settings: PredictorSettings,
    views=(),
    interrupt=lambda: None,
    ensemble: Sequence[Ensemble] = (),
    activation: Literal["softmax", "sigmoid"] = "softmax",
    votes: bool = False,
) -> Predictor:
    """The whole way from images to probabilities.

    activate: (logits B×C×H×W, images as they were read) -> probabilities. interrupt: called before each pass
    of the network; what it raises ends the prediction. activation: what `activate` applies, for
    tta_merge=logit. votes: also predict the votes of the views, see `views.Merge` and `views.split_votes`.
    """
    # Not every network has trainable parameters.
    device = next(itertools.chain(model.parameters(), model.buffers())).device
    check_settings(model, settings)
    margin = model.margin

    def scores(normalised: Tensor) -> Tensor:
        interrupt()
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
        return _merged(own, ensemble, images, activate, settings.merge)

    refine = None
    if settings.crf:
        refine = crf(settings.crf, settings.crf_window, settings.crf_solver, interrupt)
    by_tile = settings.tile is not None
    merge = Merge(settings.tta_merge, activation, settings.tta_batch, votes)
    one_tile = refined(average(whole, views, merge), refine, votes) if by_tile else whole
    if margin:
        # Adjacent tiles without overlap equal one pass over the image, except after a CRF.
        overlap = settings.overlap if by_tile and refine else 0.0
        strips = overlap_tile(one_tile, margin, model.tile_sides, settings.tile, overlap)
    else:
        strips = sliding(one_tile, settings.tile, settings.overlap)
    if not by_tile and (views or refine):
        strips = _in_one(refined(average(assembled(strips), views, merge), refine, votes))
    return Predictor(model, strips)


def check_settings(model: Network, settings: PredictorSettings) -> None:
    """ConfigError for settings that this network cannot be run with."""
    margin = model.margin
    if margin and (settings.boxes or settings.ensemble):
        key = "boxes" if settings.boxes else "ensemble"
        raise ConfigError(
            f"predictor.{key} needs a network that answers for all of its input, not for the inner part "
            f"only; use predictor.{key}=null"
        )
    if settings.merge == "product" and len(settings.further_runs) > 1:
        raise ConfigError(
            f"predictor.ensemble_merge=product joins two networks, and predictor.ensemble names "
            f"{len(settings.further_runs)} besides the run's; use predictor.ensemble_merge=mean"
        )
    check_box_sides(settings.box_sides)
    if settings.boxes:
        check_side(model, "predictor.box_input", settings.box_input)
    elif settings.tile is not None and not margin:
        check_side(model, "predictor.tile", settings.tile)
    if settings.boxes and model.log_probabilities:
        raise ConfigError(
            f"predictor.boxes={settings.boxes} merges scores from 0 on, and this network's are "
            f"log-probabilities, none above 0; use predictor.boxes=null"
        )
    check_merge(model, "this network", settings)


def check_target(target: Target, settings: PredictorSettings) -> None:
    """ConfigError for settings that need classes where the task has none, and a CRF, which needs classes that
    exclude each other, where it has labels. See also `check_activation`."""
    product = settings.ensemble and settings.merge == "product"
    asked = {
        "crf": (settings.crf, "crf=null"),
        "boxes": (settings.boxes, "boxes=null"),
        "ensemble_merge=product": (product, "ensemble_merge=mean"),
        "tta_merge=logit": (settings.tta_merge == "logit", "tta_merge=probability"),
    }
    for key, (value, instead) in asked.items():
        if value and target.labels and key == "crf":
            raise ConfigError(
                "predictor.crf works on classes that exclude each other, and the task has a sigmoid for each "
                "label; use predictor.crf=null"
            )
        if value and not target.classes and not target.labels:
            raise ConfigError(
                f"predictor.{key} works on classes, and the task has none; use predictor.{instead}"
            )


def check_activation(task, model: Network, settings: PredictorSettings) -> None:
    """ConfigError for what needs the scores of a softmax where the task decides by a sigmoid."""
    if task.activation == "softmax":
        return
    typed, instead = f"task.activation={task.activation}", "task.activation=softmax"
    if task.target.labels:
        typed, instead = f"task={task.name}", "task=semantic"
    if model.log_probabilities:
        raise ConfigError(
            f"{typed} takes logits, and this network's scores are log-probabilities; use {instead}"
        )
    product = "product" if settings.ensemble and settings.merge == "product" else None
    for key, value, other in (
        ("boxes", settings.boxes, "null"),
        ("ensemble_merge", product, "mean"),
    ):
        if value:
            raise ConfigError(
                f"predictor.{key}={value} merges scores from 0 on, each a probability of 0.5 or more with "
                f"{typed}; use predictor.{key}={other}"
            )


def check_merge(model: Network, which: str, settings: PredictorSettings) -> None:
    """ConfigError if ensemble_merge=product meets log-probabilities: the product clamps scores at 0, and
    those are never above 0."""
    if settings.ensemble and settings.merge == "product" and model.log_probabilities:
        raise ConfigError(
            f"predictor.ensemble_merge=product takes scores above 0, and those of {which} are "
            f"log-probabilities, none above 0; "
            "use predictor.ensemble_merge=mean"
        )


def _in_one(predict: Predict) -> Strips:
    return lambda images, columns=None: iter([predict(images)[..., slice(*columns or (None,))]])


def _merged(
    own: Tensor,
    others: Sequence[Ensemble],
    images: Tensor,
    activate: Callable[[Tensor, Tensor], Tensor],
    merge: str,
) -> Tensor:
    """Probabilities of the networks' scores: the mean of their probabilities, or, of two networks, those of
    the product of what is above 0 in both. DeconvNet's code joins its scores with those of an FCN-8s by the
    product, its paper by the mean (Noh et al. 2015, sec. 4.4)."""
    if others and merge == "product":
        (other,) = others
        return activate(own.clamp_min(0) * other.scores(images).clamp_min(0), images)
    total = activate(own, images)
    for other in others:  # one after the other: the scores of one network take as much memory as its images
        total = total + activate(other.scores(images), images)
    return total / (1 + len(others)) if others else total


def refined(predict: Predict, refine: Refine | None, votes: bool = False) -> Predict:
    """`predict`, followed by `refine` if there is one. Where `predict` answers for the inner part of its
    images only, `refine` gets that part. votes: those that `predict` gives too stay as they are."""
    if refine is None:
        return predict

    def function(images: Tensor) -> Tensor:
        probabilities = predict(images)
        lost = (images.shape[-1] - probabilities.shape[-1]) // 2
        inner = images[..., lost : images.shape[-2] - lost, lost : images.shape[-1] - lost]
        if not votes:
            return refine(inner, probabilities)
        probabilities, of_views = split_votes(probabilities)
        return torch.cat([refine(inner, probabilities.contiguous()), of_views], dim=1)

    return function


def protocol(model: Network, settings: PredictorSettings, ensemble: Sequence[Ensemble]) -> dict:
    """Inference settings for the protocol of scores: output stride, tiles, boxes, ensemble, CRF."""
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
        "tta_merge": settings.tta_merge,
        "tile": settings.tile,
        "overlap": settings.overlap if settings.tile else None,
        "amp": settings.amp,
        "boxes": {"kind": settings.boxes, "sides": settings.box_sides, "input": settings.box_input}
        if settings.boxes
        else None,
        "ensemble": {
            "runs": {one.run: one.step for one in ensemble},
            "merge": settings.merge,
        }
        if ensemble
        else None,
        "crf": made_by_crf,
    }
