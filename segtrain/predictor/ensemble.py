"""Further networks whose scores or probabilities are merged with those of the run."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrain.checkpoint.reading import read
from segtrain.checkpoint.restore import build_from
from segtrain.errors import ConfigError
from segtrain.predictor.device import autocast
from segtrain.predictor.predictor import Ensemble, check_merge
from segtrain.settings import PredictorSettings
from segtrain.task import TASK


def read_ensemble(settings: PredictorSettings, device: torch.device) -> tuple[Ensemble, ...]:
    """The best network of each run of `predictor.ensemble`, on the device. ConfigError if its scores cannot
    be merged with those of another one."""
    twice = [run for run in settings.further_runs if settings.further_runs.count(run) > 1]
    if twice:
        raise ConfigError(f"predictor.ensemble names {twice[0]} twice; name each run once")
    return tuple(_read(run, settings, device) for run in settings.further_runs)


def _read(run: str, settings: PredictorSettings, device: torch.device) -> Ensemble:
    where = f"predictor.ensemble={run}"
    checkpoint = read(run, "best", key="predictor.ensemble")
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

    task = TASK.build(checkpoint.description["config"]["task"])
    return Ensemble(scores, facts, run, checkpoint.description["step"], task.activation)
