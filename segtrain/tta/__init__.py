"""Test-time augmentation: each entry returns a list of views (`segtrain.sample.View`). The plain image is
always one of the views; several entries give all combinations of their views."""

from segtrain.registry import Table
from segtrain.tta.flip import flip

TTA = Table("tta", {"flip": flip})
