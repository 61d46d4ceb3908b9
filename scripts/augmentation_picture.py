"""The picture of docs/augmentation.md: operations on frames of CamVid, as the lecture shows them: image and
label, augmented image and augmented label.

    python scripts/augmentation_picture.py --root CAMVID

`segtrain data show augmentation=NAME` draws the same of any data set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.augmentation import AUGMENTATION, apply
from segtrain.commands.data_show import HEADS
from segtrain.data import DATA
from segtrain.report.sheet import samples
from segtrain.sample import Sample
from segtrain.task import TASK

ROWS = (
    ("object_affine", {"shift": 1.0, "scale": [0.9, 1.5], "max_objects": 2}, 70, 7),
    ("copy_paste", {"scale": [0.8, 1.5]}, 120, 5),
    ("classmix", {}, 150, 2),
    ("elastic", {"deviation": 20.0}, 300, 5),
)
"""Operation, its options beside `probability=1`, the training frame, and the seed."""
WIDTH_PX, QUALITY = 800, 80


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="folder of CamVid, with images/ and masks/")
    parser.add_argument("--output", default="docs/augmentation.jpg", type=Path)
    asked = parser.parse_args()
    task = TASK.build({"name": "semantic"})
    data = DATA.build({"name": "camvid", "root": asked.root}, target=task.target)
    split = data.splits["train"]

    def draw(rng: np.random.Generator) -> Sample:
        return split[int(rng.integers(len(split)))]

    rows = []
    for name, options, index, seed in ROWS:
        ops = AUGMENTATION.build_each(
            {name: {**options, "probability": 1.0}}, facts=data.facts, fill=(124, 116, 104)
        )
        stored = split[index]
        rows.append((stored, apply(ops, stored, np.random.default_rng(seed), draw)))
    captions = [name for name, *_ in ROWS]
    picture = samples(rows, list(HEADS), captions, data.facts, task.picture, "CamVid", over=False)
    height = round(picture.height * WIDTH_PX / picture.width)
    small = picture.resize((WIDTH_PX, height), Image.Resampling.LANCZOS)
    small.save(asked.output, quality=QUALITY, optimize=True)
    print(f"written   {asked.output}, {asked.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
