"""Every number that a user can set has limits, and no value within them breaks what is built from it."""

from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from segtrain.build import TABLES
from segtrain.commands import COMMANDS
from segtrain.data.survey.stats import Frequency
from segtrain.errors import ConfigError, SegtrainError
from segtrain.model.network import Network
from segtrain.model.parts.sides import valid_side
from segtrain.options import REQUIRED, Limits, check_options, check_value, options_of
from segtrain.sample import IGNORE, Facts, Output, Sample
from segtrain.settings import COMPOSITES

EXTREMES = (-1, 0, 1, 0.5, 1e300, math.nan, math.inf, 10**300)
CLASSES = 3
STEPS = 20

ENTRIES = [(kind, name) for kind, table in TABLES.items() for name in table.names()]
READS_FILES = [entry for entry in ENTRIES if entry[0] == "data" and entry[1] != "shapes"]
SETTINGS = sorted(
    {(section, settings) for row in COMMANDS.values() for section, settings in row.sections.items()},
    key=lambda pair: (pair[0], pair[1].__name__),
)


def numbers_without_limits(annotation: Any) -> list[type]:
    """int and float wherever they stand in an annotation without `Limits` around them."""
    inner = typing.get_args(annotation)
    if annotation in (int, float):
        return [annotation]
    if typing.get_origin(annotation) is Literal:
        return []
    if typing.get_origin(annotation) is Annotated:
        limited = inner[0] in (int, float) and any(isinstance(one, Limits) for one in inner[1:])
        return [] if limited else numbers_without_limits(inner[0])
    if typing.get_origin(annotation) in (dict, Mapping):
        inner = inner[1:]
    return [kind for one in inner for kind in numbers_without_limits(one)]


def holding(number: float, annotation: Any) -> Iterator[Any]:
    """Values of an annotation's form with `number` wherever a number may stand."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (int, float):
        yield number
    elif origin is Annotated:
        yield from holding(number, inner[0])
    elif origin is tuple and Ellipsis not in inner:
        yield from (list(values) for values in zip(*(holding(number, one) for one in inner), strict=True))
    elif origin in (list, tuple):
        yield from ([one] * CLASSES for one in holding(number, inner[0]))
    elif origin is dict:
        yield from ({0: one} for one in holding(number, inner[1]))
    elif origin is not Literal:
        for one in inner:
            yield from holding(number, one)


def test_the_walk_sees_numbers_wherever_they_stand():
    assert numbers_without_limits(tuple[int, ...] | dict[str, float] | None) == [int, float]
    limited = Annotated[int, Limits("any", lambda value: True)]
    assert numbers_without_limits(list[limited] | Literal[1, "x"] | dict[int, limited] | bool) == []
    found = list(holding(7, int | tuple[int, float] | dict[str, int] | list[float] | Literal[1] | None))
    assert found == [7, [7, 7], {0: 7}, [7] * CLASSES]


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_number_of_a_factory_has_limits(kind, name):
    lacking = {
        key: numbers_without_limits(option.annotation) for key, option in TABLES[kind].options(name).items()
    }
    assert not any(lacking.values()), lacking


@pytest.mark.parametrize(("section", "settings"), SETTINGS)
def test_every_number_of_a_section_has_limits(section, settings):
    for key, option in options_of(settings).items():
        assert not numbers_without_limits(option.annotation), f"{section}.{key}"


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_defaults_are_within_the_limits(kind, name):
    for key, option in TABLES[kind].options(name).items():
        if option.default is not REQUIRED and option.default is not None:
            check_value(option.default, option.annotation, key)


def runtime() -> dict:
    frequency = Frequency(np.array([80, 15, 5]), np.array([100, 100, 50]))
    return {
        "num_classes": CLASSES,
        "ignore_index": IGNORE,
        "class_frequency": lambda: frequency,
        "facts": Facts(("background", "a", "b"), ((0, 0, 0),) * CLASSES),
        "fill": (0.0, 0.0, 0.0),
        "network": nn.Conv2d(3, 2, 1),
        "steps": STEPS,
        "valid_side": lambda side: side,
    }


def target() -> torch.Tensor:
    return torch.arange(64).view(1, 8, 8).div(22, rounding_mode="floor").to(torch.uint8)


def use(kind: str, built: Any) -> None:
    """Runs what a factory made once, on eight pixels."""
    if kind == "loss":
        logits = torch.randn(1, CLASSES, 8, 8, requires_grad=True)
        built(Output(logits, (8, 8), aux=(logits,)), target())[0].backward()
    elif kind == "optimizer":
        for group in built.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        built.step()
    elif kind == "schedule":
        factors = [built(step) for step in range(STEPS)]
        assert all(0 <= factor <= 1 for factor in factors), factors
        assert all(one >= other for one, other in itertools.pairwise(factors[2:])), factors
    elif kind == "augmentation":
        labels = target()[0].numpy()
        sample = Sample(np.zeros((8, 8, 3), np.uint8), labels)
        built(sample, np.random.default_rng(0), lambda rng: sample)
    elif kind == "tta":
        for view in built:
            seen = view.forward(target()[:, None])
            view.backward(torch.rand(1, 2, *seen.shape[-2:]), (8, 8))
    elif kind == "metric":
        decisions = target().flip(1).long()
        evidence = {"decisions": decisions, "probabilities": torch.eye(CLASSES)[decisions].movedim(-1, 1)}
        built.scores(built.counts(target(), **{need: evidence[need] for need in built.needs}).sum(0))
    elif kind == "data":
        assert built.splits["train"][0].target.dtype == np.uint8


@pytest.mark.parametrize(
    ("kind", "name"),
    [entry for entry in ENTRIES if entry[0] != "model" and entry not in READS_FILES],
)
def test_a_number_is_refused_or_works(kind, name):
    table = TABLES[kind]
    tried = refused = 0
    for key, option in table.options(name).items():
        for value in (one for number in EXTREMES for one in holding(number, option.annotation)):
            tried += 1
            options = {key: value}
            try:
                if kind in COMPOSITES:
                    (built,) = table.build_each({name: options}, **runtime())
                else:
                    built = table.build({"name": name, **options}, **runtime())
                use(kind, built)
            except SegtrainError as error:
                assert f"{kind}." in str(error) and key in str(error)
                refused += 1
    assert refused >= tried / 4  # not a number, infinity at the least


VGG = {"weights": "none", "width": 0.05}
RESNET = {"weights": "none", "encoder": "test_resnet"}
SMALL = {
    "cascade": {**RESNET, "blocks": 5},
    "classical": {"smoothing": "icm", "num_regions": 9, "textons": 4, "trees": 2},
    "deconvnet": {**VGG, "fc_width": 16},
    "deeplabv3": {**RESNET, "aspp_width": 8},
    "deeplabv3plus": {**RESNET, "aspp_width": 8, "decoder_width": 8},
    "dilated": VGG,
    "fcn": RESNET,
    "fcn16s": VGG,
    "fcn32s": VGG,
    "fcn8s": VGG,
    "lraspp": {**RESNET, "width": 8},
    "patchwise": {**RESNET, "patch": 31},
    "unet": {"widths": [4, 8, 8]},
    "unet_original": {"width": 0.05},
    "unet_padded": {"width": 0.05},
}
"""Options that make a network fast to run."""
HUGE = (512, 4096, 100_000, 2**31, 2**62)


def network_of(name: str, options: dict) -> Network | None:
    """The network, or None if the options are refused by a ConfigError that names one of them."""
    config = {"name": name, **SMALL[name], **options}
    try:
        return TABLES["model"].build(
            config, num_classes=CLASSES, out_channels=CLASSES, in_channels=3, ignore_index=IGNORE
        )
    except ConfigError as error:
        assert any(f"model.{key}" in str(error) for key in options), error
        return None


def output_of(net: Network) -> Output:
    """What two images of noise give, of the smallest side from 64 px on that the network takes."""
    side = valid_side(net, 64)
    device = next(net.parameters(), torch.empty(0)).device
    return net.train()(torch.randn(2, 3, side, side, device=device))


@pytest.mark.parametrize("name", TABLES["model"].names())
def test_a_number_of_a_network_is_refused_or_works(name):
    tried = refused = 0
    for key, option in TABLES["model"].options(name).items():
        values = [one for number in EXTREMES for one in holding(number, option.annotation)]
        lists = [[], [1], [1] * 100] if any(isinstance(one, list) for one in values) else []
        for value in [*values, *lists]:
            tried += 1
            # Half of VGG16 and more would take seconds.
            with torch.device("meta" if key == "width" and value in (0.5, 1) else "cpu"):
                net = network_of(name, {key: value})
            if net is None:
                refused += 1
                continue
            with torch.no_grad():
                logits = output_of(net).upsampled()
            assert logits.is_meta or logits.isfinite().all(), (key, value)
    assert refused >= tried / 4


@pytest.mark.parametrize("name", TABLES["model"].names())
def test_a_huge_number_of_a_network_is_refused_or_fits_into_memory(name):
    """On tensors without storage, so that a huge network costs the test nothing."""
    for key, option in TABLES["model"].options(name).items():
        for value in (one for number in HUGE for one in holding(number, option.annotation)):
            with torch.device("meta"):
                net = network_of(name, {key: value})
                if net is None or net.fits_itself:
                    continue
                assert output_of(net).logits.shape[1] == CLASSES
            size = 4 * sum(parameter.numel() for parameter in net.parameters())
            assert size < 4 << 30, (key, value, size)


@pytest.mark.parametrize(("kind", "name"), READS_FILES)
def test_a_number_is_refused_or_accepted_where_building_reads_files(kind, name):
    for key, option in TABLES[kind].options(name).items():
        for value in (one for number in EXTREMES for one in holding(number, option.annotation)):
            needed = {"sets": {}} if name == "concat" else {"root": "x"}
            try:
                TABLES[kind].check({"name": name, **needed, key: value})
            except ConfigError as error:
                assert f"{kind}.{key}" in str(error)


@pytest.mark.parametrize(("section", "settings"), SETTINGS)
def test_a_number_of_a_section_is_refused_or_accepted(section, settings):
    needed = {key: "x" for key, one in options_of(settings).items() if one.default is REQUIRED}
    needed = {**needed, **({"runs": ["x"]} if "runs" in needed else {})}
    for key, option in options_of(settings).items():
        for value in (one for number in EXTREMES for one in holding(number, option.annotation)):
            try:
                accepted = check_options({**needed, key: value}, settings, section, "it")[key]
            except ConfigError as error:
                assert key in str(error)
            else:
                settings(**{**needed, key: accepted})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "step", "factor": -0.5}, "schedule.factor is -0.5; allowed: from 0 to 1"),
        ({"name": "poly", "power": -1}, "schedule.power is -1.0; allowed: a number from 0"),
        ({"name": "poly", "floor": 2}, "schedule.floor is 2.0; allowed: from 0 to 1"),
        ({"name": "shapes", "seed": -1}, "data.seed is -1; allowed: an integer from 0 to 2^63 - 1"),
        (
            {"name": "folder", "split_seed": -1},
            "data.split_seed is -1; allowed: an integer from 0 to 2^63 - 1",
        ),
    ],
)
def test_what_the_refusal_says(config, message):
    table = next(table for table in TABLES.values() if config["name"] in table.names())
    with pytest.raises(ConfigError) as caught:
        table.check(config)
    assert str(caught.value) == message and caught.value.exit_code == 2
