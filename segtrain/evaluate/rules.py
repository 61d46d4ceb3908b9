"""The rules by which benchmarks and other programs score (`evaluate.protocol`), one row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from segtrain.errors import ConfigError
from segtrain.settings import EvaluateSettings
from segtrain.text import show


@dataclass(frozen=True)
class Rules:
    """How a benchmark scores.

    source: the program whose rules they are. absent: its value of `evaluate.absent`; None: the user's choice.
    metrics: names of metrics besides those of the task. short_side: side in pixels that the shorter side of
    images and labels is resized to before anything is computed; None: they keep their size. data: values that
    options of the data set need, where it has these options.
    """

    source: str
    absent: str | None = None
    metrics: tuple[str, ...] = ()
    short_side: int | None = None
    data: Mapping[str, object] = field(default_factory=dict)


RULES = {
    "default": Rules("segtrain: evaluate.absent, the chosen metrics, images of their own size"),
    # A class of which no pixel is labelled or predicted is nan there, and left out of the mean.
    "cityscapes": Rules(
        "cityscapesScripts, evalPixelLevelSemanticLabeling", absent="union", metrics=("cityscapes",)
    ),
    # A mean over all 21 classes; the published splits lack none, so that no rule for absent ones is needed.
    "voc": Rules("VOCdevkit, VOCevalseg", absent="union"),
    "coco_stuff": Rules("cocostuffapi, cocostuffeval", absent="gt"),
    # The mean is nan there if a class is absent.
    "torchvision": Rules(
        "torchvision, references/segmentation",
        absent="union",
        short_side=520,
        data={"overlap": "ignore", "crowd": "class"},
    ),
}
"""By the values of `evaluate.protocol`. What is ignored is the same in all: pixels without a label, such as
the void border of VOC, the unlabelled pixels of COCO-Stuff and the labels beside the 19 of Cityscapes; the
data sets read them so."""


def rules_of(settings: EvaluateSettings, data: Mapping) -> Rules:
    """The rules of `evaluate.protocol`. data: config of the data set. ConfigError for values of
    evaluate.absent or of the data set's options that contradict them."""
    rules, name = RULES[settings.protocol], settings.protocol
    if rules.absent not in (None, settings.absent) and settings.absent != EvaluateSettings.absent:
        raise ConfigError(
            f"evaluate.absent={settings.absent} contradicts evaluate.protocol={name}, which is "
            f"absent={rules.absent}; leave one of the two out"
        )
    for option, value in rules.data.items():
        if option in data and data[option] != value:
            raise ConfigError(
                f"data.{option}={show(data[option])} contradicts evaluate.protocol={name}; set "
                f"data.{option}={show(value)}, or another protocol"
            )
    return rules


def protocol_of(rules: Rules, settings: EvaluateSettings) -> dict:
    """The rules, for the protocol of scores."""
    made = {"protocol": settings.protocol, "absent": rules.absent or settings.absent}
    return made if rules.short_side is None else {**made, "resolution": f"shorter side {rules.short_side}"}
