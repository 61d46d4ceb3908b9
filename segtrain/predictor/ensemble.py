"""A second network whose scores or probabilities are merged with those of the run."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrain import checkpoint as checkpoints
from segtrain.checkpoint.restore import build_from
from segtrain.errors import ConfigError
from segtrain.predictor.device import autocast
from segtrain.predictor.predictor import Ensemble, check_merge
from segtrain.sample import Facts
from segtrain.settings import PredictorSettings


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
    if getattr(model, "margin", 0):
        raise ConfigError(
            f"{where} answers for the inner part of its input only; use a run of another network"
        )
    check_merge(model, where, settings)
    model.to(device)

    def scores(images: Tensor) -> Tensor:
        with autocast(device, settings.amp):
            output = model(other.normalisation(images))
        return output.upsampled()

    return Ensemble(scores, settings.ensemble, description["step"])
