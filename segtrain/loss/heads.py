"""Losses of the main head and of auxiliary heads."""

from __future__ import annotations

from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.sample import Facts, Output, Target


class HeadLoss(nn.Module):
    """Base class of the losses that are computed on each head of a network: the loss of the main head, plus
    aux_weight times that of each auxiliary head, over the weight of the main head.

    A loss defines `of_head`, and `labels` where it needs more than the target.
    """

    def __init__(self, aux_weight: float):
        super().__init__()
        self.aux_weight = aux_weight

    def forward(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor]:
        labels = self.labels(output, target)
        total, weight = self.of_head(output, labels)
        for logits in output.aux:
            total = total + self.aux_weight * self.of_head(output._replace(logits=logits), labels)[0]
        return total, weight

    def labels(self, output: Output, target: Tensor):
        """What `of_head` gets, made once for all heads: int64 B×H×W, the part of the target that the logits
        cover."""
        return output.crop(target).long()

    def of_head(self, head: Output, labels) -> tuple[Tensor, Tensor]:
        """(total, weight) of one head, float32 scalars. head: the output with the head's logits as `logits`;
        head.upsampled() are those at full size."""
        raise NotImplementedError


def probabilities_of(logits: Tensor, activation: str) -> Tensor:
    """B×C×H×W probabilities by the activation of the task, softmax or sigmoid."""
    return logits.softmax(1) if activation == "softmax" else logits.sigmoid()


def check_classes(name: str, target: Target) -> None:
    """ConfigError if the task has no classes."""
    if not target.classes:
        raise ConfigError(f"loss={name} compares classes, and the task has none; choose another loss")


def foreground(num_classes: int, facts: Facts | None) -> tuple[int, ...]:
    """Indices of all classes but background."""
    return tuple(
        index for index in range(num_classes) if facts is None or facts.classes[index] != "background"
    )


def check_activation(name: str, needed: str, activation: str) -> None:
    """ConfigError if the loss takes the logits for those of another activation than the task does."""
    if needed != activation:
        raise ConfigError(
            f"loss={name} trains logits of a {needed}, and the task decides by a {activation} "
            f"(task.activation); choose task.activation={needed} or a loss for a {activation}"
        )
