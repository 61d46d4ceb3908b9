"""A second network whose scores or probabilities are merged with those of the run."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrain.checkpoint.reading import read
from segtrain.checkpoint.restore import build_from
from segtrain.errors import ConfigError
from segtrain.predictor.device import autocast
from segtrain.predictor.predictor import Ensemble, check_merge
from segtrain.settings import PredictorSettings


def read_ensemble(settings: PredictorSettings, device: torch.device) -> Ensemble:
    """The best network of the run `predictor.ensemble`, on the device. ConfigError if its scores cannot be
    merged with those of another one."""
    where = f"predictor.ensemble={settings.ensemble}"
    checkpoint = read(settings.ensemble, "best", key="predictor.ensemble")
    model, facts = build_from(checkpoint)
    if model.margin:
        raise ConfigError(
            f"{where} answers for the inner part of its input only; use a run of another network"
        )
    check_merge(model, where, settings)
    model.to(device)

    def scores(images: Tensor) -> Tensor:
        with autocast(device, settings.amp):
            output = model(facts.normalisation(images))
        return output.upsampled()

    return Ensemble(scores, facts, settings.ensemble, checkpoint.description["step"])
