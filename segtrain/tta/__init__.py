"""Test-time augmentation: each entry gives a list of views (`segtrain.sample.View`) beside the plain image,
which always counts; with several entries, all combinations of their views are used."""

from segtrain.registry import Table
from segtrain.tta.flip import flip

TTA = Table("tta", {"flip": flip})
