"""Batches of logits and targets for the tests of losses."""

import torch

from segtrain.loss import LOSS
from segtrain.sample import IGNORE

CLASSES = 3


def built(name, activation=None, **options):
    """The loss of 3 classes; activation: of the task, by default the one that the loss needs."""
    runtime = {} if activation is None else {"task_activation": activation}
    return LOSS.build(
        {"name": name, **options},
        num_classes=CLASSES,
        ignore_index=IGNORE,
        class_frequency=None,
        **runtime,
    )


def batch(images=2, height=6, width=5, ignored=0.2, scale=1.0, seed=0):
    """B×3×H×W float32 logits with a gradient, and B×H×W uint8 targets of all classes."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(images, CLASSES, height, width, generator=generator)
    target = torch.randint(0, CLASSES, (images, height, width), generator=generator).to(torch.uint8)
    target[torch.rand(images, height, width, generator=generator) < ignored] = IGNORE
    return logits.requires_grad_(), target


def mean_and_gradient(loss, logits):
    """total / weight of a loss `(total, weight)`, or a plain scalar, and its gradient to the logits."""
    value = loss[0] / loss[1] if isinstance(loss, tuple) else loss
    (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
    return value.detach(), gradient
