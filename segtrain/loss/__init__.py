"""Losses: `loss(output, target) -> (total, weight)`, two float32 scalars.

The loss of an optimizer step is Σ total / Σ weight over its micro-batches. output: `segtrain.sample.Output`,
target: B×H×W uint8 class indices, or B×T×H×W labels. Without any labelled pixel, total and weight are 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from segtrain.errors import ConfigError
from segtrain.loss.binary_cross_entropy import binary_cross_entropy
from segtrain.loss.cldice import cldice
from segtrain.loss.cross_entropy import cross_entropy
from segtrain.loss.dice import dice
from segtrain.loss.focal import focal_sigmoid, focal_softmax
from segtrain.loss.jaccard import jaccard
from segtrain.loss.lovasz_softmax import lovasz_softmax
from segtrain.loss.ohem import ohem
from segtrain.loss.tversky import tversky
from segtrain.loss.weighted_sum import WeightedSum
from segtrain.options import NOT_NEGATIVE, check_value
from segtrain.registry import Table
from segtrain.sample import CLASSES, Facts, Target


def weighted_sum(
    num_classes: int,
    ignore_index: int,
    class_frequency: Callable,
    terms: dict[str, dict[str, Any] | None],
    facts: Facts | None = None,
    target: Target = CLASSES,
    task_activation: str = "softmax",
) -> WeightedSum:
    """Weighted sum of several losses.

    Options:
        terms: name of each loss -> its options and its `factor` in the sum (default 1):
            {cross_entropy: {factor: 1.0, class_weights: median}, jaccard: {factor: 0.5}}; null removes a loss
    """
    runtime = {
        "num_classes": num_classes,
        "ignore_index": ignore_index,
        "class_frequency": class_frequency,
        "facts": facts,
        "target": target,
        "task_activation": task_activation,
    }
    terms = {name: options for name, options in terms.items() if options is not None}
    if not terms or "weighted_sum" in terms:
        allowed = ", ".join(name for name in LOSS.names() if name != "weighted_sum")
        raise ConfigError(f"loss.terms is {sorted(terms)}; allowed: one or more of {allowed}")
    factors = [
        check_value(options.get("factor", 1.0), Annotated[float, NOT_NEGATIVE], f"loss.terms.{name}.factor")
        for name, options in terms.items()
    ]
    if not any(factors):
        raise ConfigError(
            f"the factors of loss.terms are {factors}; allowed: numbers from 0, not all of them 0"
        )
    return WeightedSum([_term(name, options, runtime) for name, options in terms.items()], factors)


def _term(name: str, options: dict[str, Any], runtime: dict):
    """A loss of a sum, whose errors name its options where they stand."""
    config = {key: value for key, value in options.items() if key != "factor"} | {"name": name}
    try:
        return LOSS.build(config, **runtime)
    except ConfigError as error:
        text = str(error).replace(f"loss={name} ", f"loss.terms.{name} ")
        raise ConfigError(re.sub(r"\bloss\.(?!terms\.)", f"loss.terms.{name}.", text)) from error


LOSS = Table(
    "loss",
    {
        "binary_cross_entropy": binary_cross_entropy,
        "cldice": cldice,
        "cross_entropy": cross_entropy,
        "dice": dice,
        "focal_sigmoid": focal_sigmoid,
        "focal_softmax": focal_softmax,
        "jaccard": jaccard,
        "lovasz_softmax": lovasz_softmax,
        "ohem": ohem,
        "tversky": tversky,
        "weighted_sum": weighted_sum,
    },
)
