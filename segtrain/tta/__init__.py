"""Test-time augmentation: each entry returns a list of views (`segtrain.sample.View`). The plain image is
always one of the views; several entries give all combinations of their views."""

from segtrain.registry import Table
from segtrain.tta.flip import flip
from segtrain.tta.rot90 import rot90
from segtrain.tta.rotate import rotate
from segtrain.tta.scale import scale

TTA = Table("tta", {"flip": flip, "rot90": rot90, "rotate": rotate, "scale": scale})
