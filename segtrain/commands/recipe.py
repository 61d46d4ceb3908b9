"""The recipe that `segtrain plan` proposes: from what a data set holds to the keys of an experiment, each
with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import yaml

from segtrain.errors import printable
from segtrain.settings import COMPOSITES

SMALL, LARGE = "tf_efficientnet_lite0", "resnet50"
"""Encoders for a CPU and for a GPU."""
BATCH = {"cpu": 8, "cuda": 16}
CROPS = {"cpu": (256, 192, 128), "cuda": (512, 384, 256)}
"""Sides of crops in pixels, the preferred one first; multiples of 32, the output stride of the encoders."""
ENOUGH_STEPS = 100
"""A smaller crop is taken where fewer steps fit into the time."""
MOST_EPOCHS, MOST_EPOCHS_FROM = 400, 500
"""No more epochs than that, once there are that many steps."""
UNEVEN = 10
"""Ratio of the pixels of the most and least frequent class from which class weights are set."""
RARE = 0.1
"""Share of the images below which a class is rare."""
DOMINANT = 0.6
"""Share of the labelled pixels above which one class is dominant."""


class Choice(NamedTuple):
    """key: of the training config; a group's own name holds its entry. reason: one line."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Findings:
    """What is known of a data set. height, width: medians of the training images, in pixels. class_pixels:
    int64[N, C], pixels of each class in each training image. groups: number of groups of samples. shared: how
    many of them have samples in both train and val. drawn: whether those two splits were drawn at random, not
    given by folders, lists or a publisher."""

    classes: Sequence[str]
    num_train: int
    num_val: int
    height: int
    width: int
    channels: int
    class_pixels: np.ndarray
    groups: int = 0
    shared: int = 0
    drawn: bool = False


@dataclass(frozen=True)
class Costs:
    """What 20 steps and some evaluated batches took. step_s: seconds a step. evaluation_s: seconds of an
    evaluation of the validation split. start_s: seconds before the first step."""

    step_s: float
    evaluation_s: float
    start_s: float


def crop_sides(found: Findings, device: str) -> list[int]:
    """The sides of crops to be tried, the preferred one first: those that fit into the images."""
    shorter = min(found.height, found.width)
    return [side for side in CROPS[device] if side <= shorter] or [max(32, shorter // 32 * 32)]


def network(found: Findings, device: str, crop: int, pretrained: str | None) -> list[Choice]:
    """The choices that do not depend on time: network, loss, optimizer, augmentation, sampler.

    pretrained: why there are no pretrained weights; None if there are.
    """
    encoder = SMALL if device == "cpu" else LARGE
    chosen = [
        Choice("model", "deeplabv3plus", "the best network for its time of those measured on street scenes"),
        Choice("model.encoder", encoder, f"the encoder for a {'CPU' if device == 'cpu' else 'GPU'}"),
        Choice("model.weights", "none", pretrained)
        if pretrained
        else Choice("model.weights", "imagenet", "pretrained weights are there, and few images need them"),
        Choice("model.output_stride", 16, "8 takes about twice the time"),
        Choice("model.separable", True, "a fraction of the multiply-adds for nearly the same scores"),
        Choice("model.middle_width", 64, "features of stride 8 in the decoder: thin objects"),
        Choice("model.fine_width", 32, "a last stage at stride 2: thin objects"),
        Choice(
            "model.aspp_start", "centre", "atrous branches start as 1x1 convolutions: faster in short runs"
        ),
    ]
    return [
        *chosen,
        *_loss(found),
        *_optimizer(device, pretrained),
        *_augmentation(found, crop),
        *_sampler(found),
    ]


def _loss(found: Findings) -> list[Choice]:
    totals = found.class_pixels.sum(axis=0)
    names = np.array(found.classes)[totals > 0]
    present = totals[totals > 0]
    ratio = present.max() / present.min()
    most, least = names[present.argmax()], names[present.argmin()]
    told = f"{most} has {ratio:.0f} times the pixels of {least}"
    weights = (
        [
            Choice("loss.terms.cross_entropy.class_weights", "inverse", told),
            Choice("loss.terms.cross_entropy.weight_power", 0.5, "the full inverse overrates rare classes"),
        ]
        if ratio > UNEVEN
        else [Choice("loss.terms.cross_entropy.class_weights", "none", f"classes are even: {told}")]
    )
    return [
        Choice("loss", "weighted_sum", "cross-entropy for every pixel, Jaccard for the score"),
        *weights,
        Choice(
            "loss.terms.jaccard.factor",
            1.0,
            "the mIoU that the run is judged by is a mean of Jaccard indices",
        ),
    ]


def _optimizer(device: str, pretrained: str | None) -> list[Choice]:
    lr, factor = (0.003, 0.3) if device == "cpu" else (0.001, 0.3)
    return [
        Choice("optimizer", "adamw", "less sensitive to its learning rate than SGD in short runs"),
        Choice("optimizer.lr", lr, f"for batches of {BATCH[device]}"),
        Choice("optimizer.encoder_factor", 1.0, "the encoder starts from scratch")
        if pretrained
        else Choice("optimizer.encoder_factor", factor, "pretrained weights change less"),
        Choice("optimizer.weight_decay", 0.01, "the usual one of AdamW"),
        Choice("schedule", "poly", "falls to 0 at the last step, however short the run"),
    ]


def _augmentation(found: Findings, crop: int) -> list[Choice]:
    inside = crop < max(found.height, found.width)
    totals = found.class_pixels.sum(axis=0)
    share, first = totals.max() / totals.sum(), found.classes[int(totals.argmax())]
    size = f"images of {found.height}x{found.width} px (median)"
    chosen = [
        Choice("augmentation", "light", "objects nearer and farther, mirrored, in another light"),
        Choice("augmentation.warp.size", crop, size),
        Choice("augmentation.warp.scale", [0.5, 2.0], "the usual range for objects of all sizes"),
    ]
    if inside and (totals > 0).sum() > 1:
        chosen += [
            Choice(
                "augmentation.warp.class_centred",
                0.75,
                "a crop shows a part of the image: mostly a rare class",
            ),
            Choice(
                "augmentation.warp.class_draw", "sqrt_inverse", "rare classes more often, frequent ones too"
            ),
        ]
        if share > DOMINANT:
            reason = f"{share:.0%} of the labelled pixels are {first}"
            chosen.append(Choice("augmentation.warp.max_class_share", 0.75, reason))
    if found.channels != 3:
        return [
            *chosen,
            Choice("augmentation.colour", None, f"images have {found.channels} channels, not three"),
        ]
    values = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.3}
    return chosen + [
        Choice(f"augmentation.colour.{key}", value, "other light") for key, value in values.items()
    ]


def _sampler(found: Findings) -> list[Choice]:
    chosen = []
    images = (found.class_pixels > 0).sum(axis=0)  # C
    labelled = [index for index in range(len(images)) if images[index]]
    rarest = min(labelled, key=lambda index: images[index])
    if images[rarest] < RARE * found.num_train:
        told = f"{found.classes[rarest]} is in {images[rarest]} of {found.num_train} training images"
        chosen.append(Choice("sampler.class_share", 0.5, told))
    if found.shared and found.drawn and found.groups > 1:
        folds = min(5, found.groups)
        told = f"{found.shared} of {found.groups} groups are in train and val: whole groups are held out"
        chosen.append(Choice("sampler.folds", folds, told))
    return chosen


def batches(device: str, fitting: int, cores: int) -> list[Choice]:
    """The batch and how it is read. fitting: images that fit into the memory at a time."""
    size = BATCH[device]
    parts = -(-size // max(2, fitting))
    chosen = [
        Choice("loader.batch_size", size, "noisier gradients below, fewer steps above"),
        Choice("loader.workers", max(1, min(8, cores // 2)), f"{cores} cores"),
        Choice("trainer.memory_format", "channels_last", "faster convolutions"),
    ]
    if parts > 1:
        chosen.append(
            Choice("trainer.accumulate", parts, f"the memory holds about {fitting} images at a time")
        )
    if device != "cpu":
        chosen.append(Choice("trainer.amp", "bf16", "faster on a GPU, and needs no loss scaling"))
    return chosen


def steps_in(found: Findings, costs: Costs, minutes: float, batch: int) -> int:
    """Optimizer steps that fit into the time with one evaluation at the end and a twentieth to spare."""
    left = 0.95 * 60 * minutes - costs.start_s - costs.evaluation_s
    fitting = max(1, int(left / costs.step_s))
    return min(fitting, max(MOST_EPOCHS_FROM, MOST_EPOCHS * found.num_train // batch))


def affordable(sides: Sequence[int], found: Findings, costs: Costs, minutes: float, batch: int) -> int:
    """The first of the sides with which ENOUGH_STEPS fit into the time, else the last. costs: with the first
    one; the time of a step is taken to be proportional to the pixels of a crop."""
    for side in sides:
        step_s = costs.step_s * (side / sides[0]) ** 2
        if steps_in(found, replace(costs, step_s=step_s), minutes, batch) >= ENOUGH_STEPS:
            return side
    return sides[-1]


def length(found: Findings, costs: Costs, minutes: float, batch: int) -> list[Choice]:
    """The length of the run, and when it is evaluated and saved."""
    steps = steps_in(found, costs, minutes, batch)
    epochs = steps * batch / found.num_train
    often = 5 * costs.evaluation_s < 0.1 * steps * costs.step_s and steps >= 50
    return [
        Choice(
            "trainer.steps",
            steps,
            f"{minutes:g} minutes at {costs.step_s:.2f} s a step and {costs.evaluation_s:.0f} s for an "
            f"evaluation: {epochs:.1f} epochs",
        ),
        Choice("schedule.warmup", min(50, steps // 20), "a twentieth of the run, at most 50 steps"),
        Choice("trainer.evaluate_every", steps // 5, "an evaluation takes less than 2 % of the run")
        if often
        else Choice("trainer.evaluate_every", None, "evaluations take time: one at the end"),
        Choice("trainer.save_every", max(1, min(100, steps // 4)), "what a stop may cost"),
    ]


# --- as a config, and as a YAML


def as_config(choices: Iterable[Choice]) -> dict:
    """The choices as a nested training config, whose missing keys have their defaults."""
    config: dict = {}
    for choice in choices:
        first, *rest = choice.key.split(".")
        if not rest:
            config[first] = {} if first in COMPOSITES else {"name": choice.value, **config.get(first, {})}
            continue
        node = config.setdefault(first, {})
        for key in rest[:-1]:
            node = node.setdefault(key, {})
        node[rest[-1]] = choice.value
    # What removes an entry of a composite group in a YAML (null) leaves it out here.
    return {
        key: {entry: options for entry, options in value.items() if options is not None}
        if key in COMPOSITES
        else value
        for key, value in config.items()
    }


def as_yaml(choices: Iterable[Choice], head: Sequence[str]) -> str:
    """The YAML of an experiment, with the reason beside each key. head: lines of comment for its top."""
    choices = list(choices)
    groups = [choice for choice in choices if "." not in choice.key]
    lines = ["# @package _global_", *(f"# {printable(line)}" for line in head), "defaults:"]
    lines += [_commented(f"  - override /{one.key}: {_scalar(one.value)}", one.reason) for one in groups]
    tree: dict = {}
    for choice in choices:
        if "." in choice.key:
            node = tree
            *parents, last = choice.key.split(".")
            for key in parents:
                node = node.setdefault(key, {})
            node[last] = choice
    return "\n".join([*lines, *_lines(tree, 0)]) + "\n"


def _lines(tree: Mapping, depth: int) -> list[str]:
    lines = []
    for key, value in tree.items():
        if isinstance(value, Choice):
            lines.append(_commented(f"{'  ' * depth}{key}: {_scalar(value.value)}", value.reason))
        else:
            lines += [f"{'  ' * depth}{key}:", *_lines(value, depth + 1)]
    return lines


def _commented(line: str, reason: str) -> str:
    return f"{line}  # {printable(reason)}" if reason else line


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 20)
    return text.removesuffix("\n").removesuffix("\n...")


def data_choices(config: Mapping, defaults: Mapping, settled: Mapping) -> list[Choice]:
    """The data set as it was given, with what was settled from its files. defaults: of its options."""
    options = {key: value for key, value in config.items() if key != "name" and value != defaults.get(key)}
    chosen = [Choice("data", config["name"], "as given")]
    chosen += [Choice(f"data.{key}", value, "as given") for key, value in options.items()]
    return chosen + [Choice(f"data.{key}", value, "found in the files") for key, value in settled.items()]


def shown(choices: Iterable[Choice]) -> list[tuple[str, str, str]]:
    """(key, value, reason) of each choice, for a table."""
    rows = []
    for choice in choices:
        text = _scalar(choice.value)
        rows.append((choice.key, text if len(text) <= 40 else text[:39] + "…", choice.reason))
    return rows
