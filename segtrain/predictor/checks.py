"""Refusal of predictor settings that do not go with the network or the task."""

from __future__ import annotations

from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.model.parts.sides import check_side
from segtrain.predictor.boxes import check_box_sides
from segtrain.sample import Target
from segtrain.settings import PredictorSettings


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
