"""Losses: `loss(output, target) -> (total, weight)`; the loop divides one by the other over micro-batches."""

from segtrain.loss.cross_entropy import cross_entropy
from segtrain.registry import Table

LOSS = Table("loss", {"cross_entropy": cross_entropy})
