"""The settings that do not depend on the chosen network, data set or loss: typed dataclasses, whose options
`segtrain config train` prints with their meanings."""

from segtrain.settings.commands import (
    Compare,
    DataCheck,
    DataPrepare,
    DataShow,
    DataStats,
    Describe,
    Evaluate,
    Explain,
    Machine,
    Plan,
    Predict,
    Run,
    Score,
    Submit,
    SweepShow,
)
from segtrain.settings.sections import (
    EvaluateSettings,
    Loader,
    PredictorSettings,
    Sampler,
    Trainer,
)
from segtrain.settings.sweep import Launcher, Sweep

COMPOSITES = ("augmentation", "metric", "tta")
"""Groups of which several entries apply at once: `{entry: {option: value}}` instead of `{name: …, option:
value}`."""

__all__ = [
    "COMPOSITES",
    "Compare",
    "DataCheck",
    "DataPrepare",
    "DataShow",
    "DataStats",
    "Describe",
    "Evaluate",
    "EvaluateSettings",
    "Explain",
    "Launcher",
    "Loader",
    "Machine",
    "Plan",
    "Predict",
    "PredictorSettings",
    "Run",
    "Sampler",
    "Score",
    "Submit",
    "Sweep",
    "SweepShow",
    "Trainer",
]
