"""Builds the predictor of a config. Validation, `evaluate`, `predict` and `load` all do it here, so that one
run has one answer."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.parts.sides import valid_side
from segtrain.options import check_options
from segtrain.predictor.ensemble import read_ensemble
from segtrain.predictor.mirroring import warn_of_mirroring
from segtrain.predictor.predictor import (
    Ensemble,
    Predictor,
    check_activation,
    check_target,
    predictor,
    protocol,
)
from segtrain.sample import Facts
from segtrain.settings import PredictorSettings
from segtrain.task.semantic import Task
from segtrain.tta import TTA


class Prediction:
    """The checked sections `predictor` and `tta` of a config. The further networks that they name are read
    once, at their first use."""

    def __init__(self, settings: Mapping, tta: Mapping):
        """settings: {key: value} of the section `predictor`; missing keys have their defaults. tta:
        {view: {option: value}}. ConfigError names what is wrong as it is typed on the command line."""
        self.settings = PredictorSettings(
            **check_options(settings, PredictorSettings, "predictor", "section predictor")
        )
        self.tta = dict(tta)
        TTA.check_each(tta)
        self._ensemble: tuple[Ensemble, ...] | None = None

    def with_views(self, tta: Mapping) -> Prediction:
        """The same prediction with other views. Further networks that have been read are shared."""
        other = copy.copy(self)
        TTA.check_each(tta)
        other.tta = dict(tta)
        return other

    def warn_of_sides(self, classes: Sequence[str]) -> None:
        """Notice if a view is mirrored although classes are told apart by left and right."""
        warn_of_mirroring(classes, {}, self.tta)

    def of(
        self,
        model: nn.Module,
        facts: Facts,
        task: Task,
        device: torch.device,
        interrupt: Callable[[], None] = lambda: None,
        votes: bool = False,
    ) -> Predictor:
        """The predictor of a network. device: of the further networks, the same at each call. interrupt:
        called before each pass of the network; what it raises ends the prediction. votes: also predict those
        of the views; ConfigError if there are none to compare."""
        check_target(task.target, self.settings)
        check_activation(task, model, self.settings)
        if votes:
            self._check_votes(task)
        ensemble = self._further(device)
        for one in ensemble:
            one.check_same(facts, task.activation, task.name)
        # A network without padding gets images of any size, tile by tile.
        sides = (lambda side: side) if model.margin else functools.partial(valid_side, model)
        views = TTA.build_each(self.tta, valid_side=sides)
        return predictor(
            model,
            facts.normalisation,
            task.activate,
            self.settings,
            views,
            interrupt,
            ensemble,
            task.activation,
            votes,
        )

    def protocol(self, model: nn.Module) -> dict:
        """Inference settings of a network for the protocol of scores."""
        return {"tta": self.tta, **protocol(model, self.settings, self._ensemble or ())}

    def _check_votes(self, task: Task) -> None:
        if not any(options is not None for options in self.tta.values()):
            raise ConfigError("disagreement=true compares views, and tta names none; add tta=flip")
        if task.target.labels or not task.target.classes:
            raise ConfigError(
                f"disagreement=true compares the most probable classes of views, and task={task.name} has "
                f"none; leave it out"
            )

    def _further(self, device: torch.device) -> tuple[Ensemble, ...]:
        if self._ensemble is None:
            self._ensemble = read_ensemble(self.settings, device)
        return self._ensemble


def saved_prediction(
    config: Mapping,
    settings: PredictorSettings | Mapping | None = None,
    views: Mapping | str | list[str] | tuple[str, ...] | None = None,
) -> Prediction:
    """The prediction that a run was saved with.

    config: of the run. settings: a PredictorSettings replaces all saved settings, a mapping {key: value}
    those that it names. views: names or {name: {option: value}}, which replace the saved ones; None keeps
    them.
    """
    if isinstance(settings, PredictorSettings):
        chosen = dict(vars(settings))
    else:
        # As on the command line, saved keys that this version does not know are ignored.
        known = vars(PredictorSettings())
        saved = {key: value for key, value in (config.get("predictor") or {}).items() if key in known}
        chosen = {**saved, **(settings or {})}
    if views is None:
        views = config.get("tta") or {}
    elif not isinstance(views, Mapping):
        views = {name: {} for name in ([views] if isinstance(views, str) else views)}
    return Prediction(chosen, views)
