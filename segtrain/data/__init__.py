"""The table of data sets: each factory gives `Data`, facts and splits."""

from segtrain.data.camvid import camvid
from segtrain.data.cityscapes import cityscapes
from segtrain.data.folder import folder
from segtrain.data.parts import Data, Split
from segtrain.data.shapes import shapes
from segtrain.registry import Table

DATA = Table("data", {"camvid": camvid, "cityscapes": cityscapes, "folder": folder, "shapes": shapes})

__all__ = ["DATA", "Data", "Split"]
