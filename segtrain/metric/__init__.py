"""Metrics. `counts(prediction, target)`: a tensor that adds up over images and processes, from B×H×W
integers; `scores(counts, absent)`: numbers by name."""

from segtrain.metric.boundary import boundary
from segtrain.metric.confusion import confusion
from segtrain.registry import Table

METRIC = Table("metric", {"boundary": boundary, "confusion": confusion})
