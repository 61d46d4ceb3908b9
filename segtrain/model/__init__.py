"""The networks, by name."""

from segtrain.model.deeplabv3plus import deeplabv3plus
from segtrain.model.unet import unet
from segtrain.registry import Table

MODEL = Table("model", {"deeplabv3plus": deeplabv3plus, "unet": unet})
