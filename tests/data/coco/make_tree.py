"""Writes tree/ beside this file: a miniature COCO of eight drawn images, in the layout of the original.

Masks and RLEs are made by pycocotools, PNGs by Pillow. python tests/data/coco/make_tree.py
"""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

TREE = Path(__file__).parent / "tree"
H, W = 96, 128
OBJECTS = """person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign
parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe - backpack umbrella - - handbag tie
suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle
- wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair
couch potted_plant bed - dining_table - - toilet - tv laptop mouse remote keyboard cell_phone microwave oven toaster
sink refrigerator - book clock vase scissors teddy_bear hair_drier toothbrush"""
MERGED = """tree fence ceiling sky-other cabinet table floor-other pavement mountain grass dirt paper food-other
building-other rock wall-other rug"""
STUFF = {92: "banner", 93: "blanket", 95: "bridge", 100: "cardboard", 107: "counter", 109: "curtain", 112: "door-stuff",
         118: "floor-wood", 119: "flower", 122: "fruit", 125: "gravel", 128: "house", 130: "light",
         133: "mirror-stuff", 138: "net", 141: "pillow", 144: "platform", 145: "playingfield", 147: "railroad",
         148: "river", 149: "road", 151: "roof", 154: "sand", 155: "sea", 156: "shelf", 159: "snow", 161: "stairs",
         166: "tent", 168: "towel", 171: "wall-brick", 175: "wall-stone", 176: "wall-tile", 177: "wall-wood",
         178: "water-other", 180: "window-blind", 181: "window-other"}  # fmt: skip
STUFF |= {184 + number: f"{name}-merged" for number, name in enumerate(MERGED.split())}
CATEGORIES = [
    {"supercategory": "thing", "id": key, "name": name.replace("_", " ")}
    for key, name in enumerate(OBJECTS.split(), 1)
    if name != "-"
]
SKY, GRASS = (157, 187), (124, 193)  # ids in COCO-Stuff, and in the panoptic categories
PERSON, CAR, DOG, COUCH, TV, GIRAFFE = 1, 3, 18, 63, 72, 25
COLOURS = {PERSON: (200, 60, 60), CAR: (40, 40, 160), DOG: (150, 100, 40), COUCH: (160, 40, 160), TV: (20, 20, 20),
           GIRAFFE: (230, 180, 40)}  # fmt: skip


def blob(centre, radius, corners) -> list[float]:
    """The points of a polygon, with fractions of pixels as annotators leave them."""
    angle = np.arange(corners) * 2 * np.pi / corners
    x, y = centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)
    return np.stack([x, y], 1).round(2).ravel().tolist()


def rectangle(left, top, right, bottom) -> np.ndarray:
    mask = np.zeros((H, W), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def compressed(mask) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def uncompressed(mask) -> dict:
    flat = mask.ravel(order="F").astype(int)
    changes = (np.flatnonzero(np.diff(flat)) + 1).tolist()
    runs = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": runs if flat[0] == 0 else [0, *runs]}


IMAGES = {
    "train": {
        9: [(PERSON, [blob((30.3, 50.1), 20.4, 9)], 0), (DOG, [blob((80, 70), 14, 12)], 0)],
        25: [(COUCH, [blob((60, 60), 34, 6)], 0), (TV, compressed(rectangle(50, 40, 75, 60)), 0)],  # on top
        30: [(CAR, [blob((30, 70), 18, 8), blob((90, 70), 18, 8)], 0),  # in two pieces
             (PERSON, uncompressed(rectangle(0, 10, 128, 30)), 1)],
        34: [(GIRAFFE, [blob((64, 48), 30, 10)], 0)],  # in no class of VOC
        42: [(CAR, [blob((64, 48), 8, 8)], 0)],  # small
        49: [],
    },
    "val": {
        139: [(PERSON, [blob((40, 48), 25, 9)], 0), (PERSON, [blob((80, 48), 25, 9)], 0)],  # overlap
        285: [(DOG, uncompressed(rectangle(20, 20, 100, 80)), 0), (PERSON, compressed(rectangle(90, 10, 120, 90)), 1)],
    },
}  # fmt: skip


def rle_of(segmentation) -> dict:
    """As pycocotools' COCO.annToRLE."""
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, H, W))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, H, W)
    return segmentation


def write(part: str, images: dict) -> None:
    rng = np.random.default_rng(len(images))
    listed, annotations, segments_of = [], [], []
    folders = {kind: TREE / kind / f"{part}2017" for kind in (".", "stuffthingmaps")}
    folders["panoptic"] = TREE / "annotations" / f"panoptic_{part}2017"
    for folder in folders.values():
        folder.mkdir(parents=True)
    for key, objects in images.items():
        name = f"{key:012d}"
        listed.append({"license": 1, "file_name": f"{name}.jpg", "height": H, "width": W, "id": key,
                       "coco_url": "", "date_captured": ""})  # fmt: skip
        sky = np.arange(H)[:, None].repeat(W, 1) < 40
        picture = np.where(sky[..., None], (130, 180, 230), (90, 160, 60))
        stuff = np.where(sky, SKY[0] - 1, GRASS[0] - 1)
        panoptic = np.where(sky, 70_000 + key, 300 + key)
        segments = [
            {"id": 70_000 + key, "category_id": SKY[1], "iscrowd": 0, "area": 0, "bbox": []},
            {"id": 300 + key, "category_id": GRASS[1], "iscrowd": 0, "area": 0, "bbox": []},
        ]
        for number, (category, segmentation, crowd) in enumerate(objects):
            rle = rle_of(segmentation)
            mask = coco_mask.decode(rle) == 1
            annotations.append({
                "segmentation": segmentation, "area": float(coco_mask.area(rle)), "iscrowd": crowd, "image_id": key,
                "bbox": coco_mask.toBbox(rle).tolist(), "category_id": category, "id": 1000 * key + number,
            })  # fmt: skip
            picture[mask] = COLOURS[category]
            stuff[mask] = category - 1
            panoptic[mask] = 3_226_956 + 65_793 * number
            segments.append({"id": 3_226_956 + 65_793 * number, "category_id": category, "iscrowd": crowd,
                             "area": 0, "bbox": []})  # fmt: skip
        stuff[-3:], panoptic[-3:] = 255, 0
        noisy = np.clip(picture + rng.integers(-12, 13, picture.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folders["."] / f"{name}.jpg", quality=80)
        Image.fromarray(stuff.astype(np.uint8)).save(folders["stuffthingmaps"] / f"{name}.png", optimize=True)
        colours = np.stack([panoptic % 256, panoptic // 256 % 256, panoptic // 65536], -1).astype(np.uint8)
        Image.fromarray(colours).save(folders["panoptic"] / f"{name}.png", optimize=True)
        segments_of.append({"segments_info": segments, "file_name": f"{name}.png", "image_id": key})
    annotations = [annotations[index] for index in rng.permutation(len(annotations))]
    listed = [listed[index] for index in rng.permutation(len(listed))]  # as in the original, in no order
    head = {"info": {"year": 2017}, "licenses": [], "images": listed}
    things = [{**one, "isthing": 1} for one in CATEGORIES]
    both = things + [
        {"supercategory": "stuff", "isthing": 0, "id": key, "name": name} for key, name in STUFF.items()
    ]
    for number, category in enumerate(both):
        category["color"] = [number, 255 - number, number * 7 % 256]
    for kind, content, categories in (
        ("instances", annotations, CATEGORIES),
        ("panoptic", segments_of, both),
    ):
        whole = {**head, "annotations": content, "categories": categories}
        (TREE / "annotations" / f"{kind}_{part}2017.json").write_text(
            json.dumps(whole, separators=(",", ":"))
        )


if __name__ == "__main__":
    shutil.rmtree(TREE, ignore_errors=True)
    for part, images in IMAGES.items():
        write(part, images)
