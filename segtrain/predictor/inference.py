"""How a config says that networks are run: builds the predictor of the sections `predictor` and `tta`.

Validation, `evaluate`, `predict` and `load` all build their predictor here, so that scores and masks of a run
come from the same computation.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.parts.sides import valid_side
from segtrain.options import check_options, path_options
from segtrain.predictor.checks import check_activation, check_target
from segtrain.predictor.ensemble import EnsembleMember, read_ensemble
from segtrain.predictor.mirroring import warn_of_mirroring
from segtrain.predictor.predictor import Predictor, predictor, protocol
from segtrain.run.saved import relocated
from segtrain.sample import Facts
from segtrain.settings import PredictorSettings
from segtrain.task.task import Task
from segtrain.tta import TTA


class Inference:
    """The checked sections `predictor` and `tta` of a config, from which a `Predictor` is built for any
    network. The members of `predictor.ensemble` are read once, at their first use."""

    def __init__(self, settings: Mapping, tta: Mapping):
        """settings: {key: value} of the section `predictor`; missing keys have their defaults. tta:
        {view: {option: value}}. ConfigError names what is wrong as it is typed on the command line."""
        self.settings = PredictorSettings(
            **check_options(settings, PredictorSettings, "predictor", "section predictor")
        )
        self.tta = dict(tta)
        TTA.check_each(tta)
        self._ensemble: tuple[EnsembleMember, ...] | None = None

    def with_views(self, tta: Mapping) -> Inference:
        """The same settings with other views. Ensemble members that have been read are shared."""
        other = copy.copy(self)
        TTA.check_each(tta)
        other.tta = dict(tta)
        return other

    def warn_of_sides(self, classes: Sequence[str]) -> None:
        """Notice if a view is mirrored although classes are told apart by left and right."""
        warn_of_mirroring(classes, {}, self.tta)

    def predictor_of(
        self,
        model: nn.Module,
        facts: Facts,
        task: Task,
        device: torch.device,
        interrupt: Callable[[], None] = lambda: None,
        votes: bool = False,
    ) -> Predictor:
        """The predictor of a network. device: of the ensemble members, the same at each call. interrupt:
        called before each pass of the network; what it raises ends the prediction. votes: also return the
        votes of the views (`segtrain.predictor.views.Merge`); ConfigError if there are no views, or no
        classes to vote for."""
        check_target(task.target, self.settings)
        check_activation(task, model, self.settings)
        if votes:
            self._check_votes(task)
        ensemble = self._members(device)
        for member in ensemble:
            member.check_same(facts, task.activation, task.name)
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

    def _members(self, device: torch.device) -> tuple[EnsembleMember, ...]:
        if self._ensemble is None:
            self._ensemble = read_ensemble(self.settings, device)
        return self._ensemble


def inference_of(config: Mapping, run: str | None = None, description: Mapping | None = None) -> Inference:
    """The inference settings of a command's config.

    run: folder of the run whose saved sections the config was composed over; description: that of its
    checkpoint. Relative paths in sections that were saved are relative to where the run was started.
    """
    settings = config["predictor"]
    if run is not None:
        saved = description["config"].get("predictor") or {}
        settings = relocated(settings, saved, path_options(PredictorSettings), Path(run))
    inference = Inference(settings, config["tta"])
    if description is not None:
        inference.warn_of_sides(description["facts"]["classes"])
    return inference


def saved_inference(
    config: Mapping,
    settings: PredictorSettings | Mapping | None = None,
    views: Mapping | str | list[str] | tuple[str, ...] | None = None,
) -> Inference:
    """The inference settings that a run was saved with.

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
    return Inference(chosen, views)
