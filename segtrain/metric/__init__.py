"""Metrics: pure functions of predictions and targets. Several can be chosen at once:
`metric=[confusion,boundary]`.

A metric has
- `needs`: which inputs its counts take, of `decisions` (the task's predictions, B×H×W), `probabilities`
  (B×C×H×W float32) and `instances` (B×H×W uint16, of the data set); the evaluation computes no others;
- `counts(target, *, decisions=…)`: a B×… tensor with one row per image; rows of all images and processes
  are summed;
- `scores(counts)`: a `segtrain.sample.ScoreDict` from that sum, whose entries carry the names that tables
  print.

For confidence intervals it may have
- `parts(counts)`: N×P float64 from the counts of N images, sparse; what adds up over images and determines
  the scores below;
- `resampled(parts)`: {key of a score: its R values, R×C for a score per class; NaN for none} from R×P sums of
  parts.
"""

from segtrain.metric.boundary import boundary
from segtrain.metric.boundary_iou import boundary_iou
from segtrain.metric.calibration import calibration
from segtrain.metric.cityscapes import cityscapes
from segtrain.metric.confusion import confusion
from segtrain.metric.dice_per_image import dice_per_image
from segtrain.metric.labels import foreground, labels
from segtrain.metric.mistakes import mistakes
from segtrain.metric.trimap import trimap
from segtrain.registry import Table

METRIC = Table(
    "metric",
    {
        "boundary": boundary,
        "boundary_iou": boundary_iou,
        "calibration": calibration,
        "cityscapes": cityscapes,
        "confusion": confusion,
        "dice_per_image": dice_per_image,
        "foreground": foreground,
        "labels": labels,
        "mistakes": mistakes,
        "trimap": trimap,
    },
)
