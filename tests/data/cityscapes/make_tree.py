"""Writes the miniature Cityscapes tree beside this file: polygons by hand, their rasters by cityscapesScripts.

pip install numpy matplotlib pyquaternion 'pillow<11.3' && pip install --no-deps cityscapesscripts==2.3.0, then python make_tree.py.
(cityscapesScripts asks for packages that no longer build, and Pillow 11.3 writes no more PNGs of mode I.)
"""

import json
import random
from pathlib import Path

import numpy as np

np.in1d = np.isin  # removed from numpy, used by cityscapesScripts

from cityscapesscripts.helpers.labels import labels, name2label
from cityscapesscripts.preparation.json2instanceImg import json2instanceImg
from cityscapesscripts.preparation.json2labelImg import json2labelImg
from PIL import Image, ImageDraw

TREE = Path(__file__).with_name("tree")
WIDTH, HEIGHT = 96, 48
FRAMES = {
    "train": ["aachen_000000_000019", "aachen_000001_000019", "bochum_000000_000313"],
    "train_extra": ["augsburg_000000_000000", "augsburg_000000_000001", "bayreuth_000000_000002"],
    "val": ["frankfurt_000000_000294", "lindau_000000_000019"],
    "test": ["berlin_000000_000019"],
}


def scene(rng: random.Random, coarse: bool) -> list[dict]:
    """Polygons, painted in order: ground and sky, then every label once, then objects of two classes."""

    def box(label, left, top, right, bottom):
        return {"label": label, "polygon": [[left, top], [right, top], [right, bottom], [left, bottom]]}

    horizon = rng.randint(16, 30)
    polygons = [] if coarse else [box("sky", 0, 0, WIDTH, horizon)]
    polygons.append(box("road", 0, horizon, WIDTH, HEIGHT))
    for label in labels:
        left, top = rng.randint(0, WIDTH - 12), rng.randint(0, HEIGHT - 10)
        polygons.append(box(label.name, left, top, left + rng.randint(4, 11), top + rng.randint(3, 9)))
    for label in ("car", "person", "cargroup"):
        left, top = rng.randint(0, WIDTH - 22), rng.randint(0, HEIGHT - 14)
        corners = [[left, top + 12], [left + 10, top], [left + 20, top + 12]]
        polygons.append({"label": label, "polygon": corners})
    return polygons


def picture(polygons: list[dict], rng: random.Random) -> Image.Image:
    """The scene in the colours of its labels, with noise."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (40, 40, 40))
    draw = ImageDraw.Draw(image)
    for polygon in polygons:
        colour = name2label[polygon["label"].removesuffix("group")].color
        draw.polygon([tuple(point) for point in polygon["polygon"]], fill=colour)
    noise = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 3, (HEIGHT, WIDTH, 1))
    return Image.fromarray((np.asarray(image) // 4 * 3 + 8 * noise).astype(np.uint8))


def write(part: str, name: str) -> None:
    rng = random.Random(name)
    fine = scene(rng, coarse=False)
    city = name.split("_")[0]
    image = TREE / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    picture(fine, rng).save(image, optimize=True)
    kinds = {"test": ["gtFine"], "train_extra": ["gtCoarse"]}.get(part, ["gtFine", "gtCoarse"])
    for kind in kinds:
        coarse = [polygon for polygon in fine if polygon["label"] not in ("sky", "pole")]
        polygons = {"gtFine": [] if part == "test" else fine, "gtCoarse": coarse}[kind]
        stem = TREE / kind / part / city / f"{name}_{kind}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        path = f"{stem}_polygons.json"
        Path(path).write_text(json.dumps({"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": polygons}))
        json2labelImg(path, f"{stem}_labelIds.png", "ids")
        json2labelImg(path, f"{stem}_labelTrainIds.png", "trainIds")
        json2instanceImg(path, f"{stem}_instanceIds.png", "ids")


if __name__ == "__main__":
    for part, names in FRAMES.items():
        for name in names:
            write(part, name)
    table = [
        [label.name, label.id, label.trainId, label.category, label.hasInstances, label.color]
        for label in labels
    ]
    Path(__file__).with_name("labels.json").write_text(json.dumps(table))
