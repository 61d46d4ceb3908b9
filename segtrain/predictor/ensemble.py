"""Further networks whose scores or probabilities are merged with those of the run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segtrain.checkpoint.reading import read
from segtrain.checkpoint.restore import build_from
from segtrain.errors import ConfigError
from segtrain.predictor.checks import check_merge
from segtrain.predictor.device import autocast
from segtrain.predictor.tiles import Predict
from segtrain.sample import Facts
from segtrain.settings import PredictorSettings
from segtrain.task import task_of


@dataclass(frozen=True)
class EnsembleMember:
    """A further network, whose scores or probabilities are merged with those of the run's network.

    scores: images -> B×C×H×W logits. facts: of the data set that it was trained on. run, step: of its
    checkpoint. activation: of its task. task: name of its task.
    """

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


def read_ensemble(settings: PredictorSettings, device: torch.device) -> tuple[EnsembleMember, ...]:
    """The best network of each run of `predictor.ensemble`, on the device. ConfigError if its scores cannot
    be merged with those of another one."""
    twice = [run for run in settings.further_runs if settings.further_runs.count(run) > 1]
    if twice:
        raise ConfigError(f"predictor.ensemble names {twice[0]} twice; name each run once")
    return tuple(_read(run, settings, device) for run in settings.further_runs)


def _read(run: str, settings: PredictorSettings, device: torch.device) -> EnsembleMember:
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

    task = task_of(checkpoint.description)
    return EnsembleMember(scores, facts, run, checkpoint.description["step"], task.activation, task.name)
