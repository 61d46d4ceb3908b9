"""The table of data sets: each factory gives `Data`, facts and splits; and how to prepare them."""

from collections.abc import Mapping

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
from segtrain.options import path_options
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

DATA = Table("data", {**_SETS, "concat": concat_of(_SETS)})


def path_keys(options: Mapping) -> list[str]:
    """The options of a data set that hold the path of a file or folder; of the sets of `concat`, with dots:
    sets.LABEL.root. options: of the data set, with its name."""
    keys = path_options(DATA.factory(options["name"]))
    sets = {label: one for label, one in (options.get("sets") or {}).items() if one is not None}
    for label, one in sets.items():
        keys += [f"sets.{label}.{key}" for key in path_options(DATA.factory(one.get("name", label)))]
    return keys


__all__ = ["DATA", "PREPARE", "Data", "Split", "path_keys"]
