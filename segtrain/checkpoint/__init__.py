"""Checkpoints that are complete or not there: atomic saves, hashes, and loads that run no code."""

from segtrain.checkpoint.finding import find, has_checkpoint, read_link, to_resume
from segtrain.checkpoint.format import check_description, check_state, describe, plain_config
from segtrain.checkpoint.retention import link, prune
from segtrain.checkpoint.saving import save
from segtrain.checkpoint.tensors import load_state, load_weights, weights_bytes

__all__ = [
    "check_description",
    "check_state",
    "describe",
    "find",
    "has_checkpoint",
    "link",
    "load_state",
    "load_weights",
    "plain_config",
    "prune",
    "read_link",
    "save",
    "to_resume",
    "weights_bytes",
]
