"""The lecture's last figure: its systems side by side on CamVid, each trained briefly with `experiment=deck`.

    python scripts/deck.py --root CAMVID --steps 300

An encoder of EfficientNet-Lite0 with ImageNet weights stands in wherever the design allows it; the others
start from scratch. What has been trained before is not trained again.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

SEGTRAIN = Path(sys.executable).with_name("segtrain")
LITE = "model.encoder=tf_efficientnet_lite0"
SCRATCH = "model.weights=none"
NETWORKS = {
    "classical": ["model=classical"],
    "patchwise": ["model=patchwise", "augmentation=patch", "loss=cross_entropy", "loader.batch_size=64"],
    # Without batch normalisation a VGG net from scratch bears no higher rate.
    "fcn8s": ["model=fcn8s", SCRATCH, "model.width=0.25", "optimizer.lr=0.0003"],
    "unet": ["model=unet", LITE],
    "deconvnet": [
        "model=deconvnet",
        SCRATCH,
        "model.width=0.25",
        "model.fc_width=512",
        "augmentation.warp.size=224",
    ],
    "deeplabv3": ["model=deeplabv3", LITE, "model.aspp_start=centre"],
    "deeplabv3plus": ["model=deeplabv3plus", LITE, "model.separable=true", "model.aspp_start=centre"],
}
"""What is typed beside the recipe, in the order of the lecture."""


def segtrain(*arguments: str) -> None:
    print(f"\n$ segtrain {shlex.join(arguments)}", flush=True)
    ended = subprocess.run([SEGTRAIN, *arguments])
    if ended.returncode:
        sys.exit(ended.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="folder of CamVid, with images/ and masks/")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of each network")
    parser.add_argument(
        "--name", default="deck", help="the runs are outputs/NAME-NETWORK, the figure is in outputs/NAME"
    )
    parser.add_argument("--pictures", type=int, default=3, help="rows of the figure")
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        default=list(NETWORKS),
        metavar="NETWORK",
        help=", ".join(NETWORKS),
    )
    asked = parser.parse_args()
    runs = []
    for network in asked.networks:
        name = f"{asked.name}-{network}"
        words = [*NETWORKS[network], f"data.root={asked.root}", f"trainer.steps={asked.steps}"]
        segtrain("train", "experiment=deck", *words, f"name={name}", "resume=auto")
        runs.append(f"outputs/{name}")
    words = (
        f"evaluate.pictures={asked.pictures}",
        "metric=[confusion,boundary]",
        f"output=outputs/{asked.name}",
    )
    segtrain("compare", f"runs=[{','.join(runs)}]", *words)


if __name__ == "__main__":
    main()
