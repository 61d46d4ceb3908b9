"""The table of data sets: each factory gives `Data`, facts and splits; and how to prepare them."""

from segtrain.data.ade20k import ade20k
from segtrain.data.camvid import camvid
from segtrain.data.cityscapes import cityscapes
from segtrain.data.coco import coco
from segtrain.data.concat import concat_of
from segtrain.data.folder import folder
from segtrain.data.parts import Data, Split
from segtrain.data.preparation import PREPARE
from segtrain.data.shapes import shapes
from segtrain.data.voc import voc
from segtrain.data.voc_aug import voc_aug
from segtrain.registry import Table

_SETS = {
    "ade20k": ade20k,
    "camvid": camvid,
    "cityscapes": cityscapes,
    "coco": coco,
    "folder": folder,
    "shapes": shapes,
    "voc": voc,
    "voc_aug": voc_aug,
}

DATA = Table("data", {**_SETS, "concat": concat_of(Table("data", _SETS))})

__all__ = ["DATA", "PREPARE", "Data", "Split"]
