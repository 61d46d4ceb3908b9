"""`make demo`: train, evaluate and predict on built-in data with the commands that a user types, and say
where the pictures are."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from segtrain.data.shapes import shapes

SEGTRAIN = Path(sys.executable).with_name("segtrain")
NUM_PHOTOS = 4


def segtrain(*arguments: str) -> None:
    print(f"\n$ segtrain {shlex.join(arguments)}", flush=True)
    ended = subprocess.run([SEGTRAIN, *arguments])
    if ended.returncode:
        sys.exit(ended.returncode)


def write_photos(folder: Path) -> None:
    """Images of the validation split as files, for `segtrain predict`."""
    folder.mkdir(parents=True)
    split = shapes().splits["val"]
    for index in range(NUM_PHOTOS):
        Image.fromarray(split[index].image).save(folder / f"{split.name(index)}.png")


def main() -> None:
    name = time.strftime("demo-%Y%m%d-%H%M%S")
    run = Path("outputs") / name
    segtrain("train", "experiment=demo", f"name={name}")
    segtrain("evaluate", f"run={run}", "split=val", f"output={run / 'evaluate'}")
    write_photos(run / "photos")
    segtrain("predict", f"run={run}", f"input={run / 'photos'}", f"output={run / 'masks'}")
    scores = json.loads((run / "evaluate" / "scores.json").read_text())
    print(f"\nmIoU      {scores['miou']:.4f} on {scores['protocol']['images']} validation images")
    print(
        f"sheet     {(run / 'evaluate' / 'sheet.png').resolve()}  (image, ground truth, prediction, errors)"
    )
    print(f"masks     {(run / 'masks').resolve()}")


if __name__ == "__main__":
    main()
