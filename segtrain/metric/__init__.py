"""Metrics: `counts(prediction, target)`, tensors that add; `scores(counts)`, numbers."""

from segtrain.metric.boundary import boundary
from segtrain.metric.confusion import confusion
from segtrain.registry import Table

METRIC = Table("metric", {"boundary": boundary, "confusion": confusion})
