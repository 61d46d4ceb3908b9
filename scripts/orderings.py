"""What DeepLab's papers find, asked of short runs on CamVid: a finer output stride, the image's mean in the
pyramid, the decoder.

    python scripts/orderings.py --root CAMVID --steps 300 --seeds 0 1

Each network is trained with `experiment=deck` and scored at output strides 16 and 8, also within 3 px of true
boundaries. What has been trained or scored before is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

from deck import LITE, segtrain

BAND_PX = 3
STRIDES = (16, 8)
CENTRE = "model.aspp_start=centre"
NETWORKS = {
    "deeplabv3": ["model=deeplabv3", LITE, CENTRE],
    "without image pooling": ["model=deeplabv3", LITE, CENTRE, "model.image_pooling=false"],
    "with decoder": ["model=deeplabv3plus", LITE, CENTRE],
}
"""All three have the same pyramid of full convolutions, so that each differs from the first in one thing."""


def scored(run: str, stride: int) -> dict:
    """scores.json of a run at an output stride."""
    output = Path("outputs", run, f"os{stride}")
    if not (output / "scores.json").exists():
        words = (
            f"model.output_stride={stride}",
            "metric=[confusion,boundary]",
            f"metric.boundary.tolerance_px={BAND_PX}",
            "evaluate.pictures=0",
        )
        segtrain("evaluate", f"run=outputs/{run}", *words, f"output={output}")
    return json.loads((output / "scores.json").read_text("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="folder of CamVid, with images/ and masks/")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of each run")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1], help="each network is trained once with each"
    )
    asked = parser.parse_args()
    rows = []
    for number, (network, words) in enumerate(NETWORKS.items()):
        scores = {stride: [] for stride in STRIDES}
        for seed in asked.seeds:
            run = f"orderings-{number}-{seed}"
            more = (
                f"data.root={asked.root}",
                f"trainer.steps={asked.steps}",
                f"seed={seed}",
                f"name={run}",
                "resume=auto",
            )
            segtrain("train", "experiment=deck", *words, *more)
            for stride in STRIDES:
                scores[stride].append(scored(run, stride))
        rows += [(network, stride, found) for stride, found in scores.items()]
    print(f"\nmean of seeds {', '.join(map(str, asked.seeds))}, {asked.steps} steps\n")
    print(f"{'network':<24}stride    mIoU  (each seed)  mIoU within {BAND_PX} px of boundaries  (each seed)")
    for network, stride, found in rows:
        shown = [
            f"{mean(values):.3f}  ({', '.join(f'{value:.3f}' for value in values)})"
            for values in columns(found)
        ]
        print(f"{network:<24}{stride:>6}    {'  '.join(shown)}")


def columns(found: list[dict]) -> list[list[float]]:
    return [[scores[key] for scores in found] for key in ("miou", "boundary_miou")]


if __name__ == "__main__":
    main()
