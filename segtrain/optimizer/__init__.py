"""Optimizers over the network's parameter groups."""

from segtrain.optimizer.adamw import adamw
from segtrain.optimizer.sgd import sgd
from segtrain.registry import Table

OPTIMIZER = Table("optimizer", {"adamw": adamw, "sgd": sgd})
