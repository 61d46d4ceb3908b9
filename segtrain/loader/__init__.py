"""Batches: seeded, seekable, read by worker processes."""

from segtrain.loader.batch import Batch
from segtrain.loader.loader import evaluation_batches, training_batches

__all__ = ["Batch", "evaluation_batches", "training_batches"]
