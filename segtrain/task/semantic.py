"""Semantic segmentation: one class for every pixel."""

from __future__ import annotations

import math
from typing import Literal

from segtrain.sample import Facts, colourise, wrong_pixels
from segtrain.task.decision import most_probable
from segtrain.task.task import Task


def _exclusive(facts: Facts) -> float:
    """The logit of probability 1 / C, that of each of C classes of which one is right: -log(C - 1)."""
    return -math.log(max(1, facts.num_classes - 1))


def semantic(activation: Literal["softmax", "sigmoid"] = "softmax") -> Task:
    """One class for every pixel: the most probable one, scored by mIoU.

    Options:
        activation: softmax: the probabilities of a pixel's classes sum to 1; sigmoid: each class has a
            probability of its own
    """
    return Task(
        name="semantic",
        out_channels=lambda facts: facts.num_classes,
        activate=lambda logits, images: logits.softmax(1) if activation == "softmax" else logits.sigmoid(),
        activation=activation,
        initial_logit=_exclusive if activation == "sigmoid" else None,
        decide=most_probable,
        metrics={"confusion": {}},
        score="miou",
        picture=lambda classes, facts: colourise(classes, facts.palette),
        errors=lambda target, prediction, facts: wrong_pixels(target, prediction, facts.ignore_index),
    )
