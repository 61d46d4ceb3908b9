"""Metrics, pure functions of a prediction and its target. Several apply at once:
`metric=[confusion,boundary]`.

A metric has
- `needs`: which of `decisions` (the task's predictions, B×H×W), `probabilities` (B×C×H×W float32) and
  `instances` (B×H×W uint16, the data set's) its counts take; the evaluation makes no others;
- `counts(target, *, decisions=…)`: a B×… tensor, one row an image, that adds over images and processes;
- `scores(counts)`: from the sum over images, a `segtrain.sample.ScoreDict`, whose entries carry the
  names that tables print.
"""

from segtrain.metric.boundary import boundary
from segtrain.metric.confusion import confusion
from segtrain.registry import Table

METRIC = Table("metric", {"boundary": boundary, "confusion": confusion})
