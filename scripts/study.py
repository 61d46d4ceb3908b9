"""A study on CamVid: losses, object augmentation and test-time augmentation, compared over paired seeds.

    python scripts/study.py --root CAMVID

Each recipe changes one thing in `experiment=camvid_lite0` and is trained with the same seeds on split=drive.
The difference of a recipe to the first one is taken seed by seed; its 95 % interval is that of Student's t.
What has been trained or evaluated before is not done again, so the study may be stopped and started at any
time, and two processes may share the work: one with --seeds 0 2 4, one with --seeds 1 3, then one with all.
The table is printed and written to outputs/NAME/study.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from scipy import stats

SEGTRAIN = Path(sys.executable).with_name("segtrain")
WEIGHTED = ["loss.class_weights=inverse", "loss.weight_power=0.5"]
OBJECTS = "augmentation=[warp,object_affine,colour]"


def summed(term: str) -> list[str]:
    """Cross-entropy and another loss, in place of the experiment's Jaccard."""
    return ["loss.terms.jaccard=null", f"loss.terms.{term}={{}}"]


TRAINED = {
    "cross-entropy + Jaccard (camvid_lite0)": [],
    "cross-entropy": ["loss=cross_entropy", *WEIGHTED],
    "focal": ["loss=focal_softmax", *WEIGHTED],
    "cross-entropy + Dice": summed("dice"),
    "cross-entropy + Lovász": summed("lovasz_softmax"),
    "with object augmentation": [OBJECTS],
}
"""What is typed for each training; the first one is what the others are compared with."""
VIEWS = {
    "flip": ["tta=flip"],
    "rotation by 5 degrees": ["tta=rotate"],
    "scales 0.75, 1, 1.25": ["tta=scale", "tta.scale.factors=[0.75,1.0,1.25]"],
    "all of them": ["tta=[flip,rotate,scale]", "tta.scale.factors=[0.75,1.0,1.25]"],
}
"""What is typed for each evaluation of the first recipe; they are compared with no views."""


def segtrain(*arguments: str) -> None:
    print(f"\n$ segtrain {shlex.join(arguments)}", flush=True)
    ended = subprocess.run([SEGTRAIN, *arguments])
    if ended.returncode:
        sys.exit(ended.returncode)


def run_of(asked: argparse.Namespace, number: int, seed: int) -> str:
    return f"{asked.name}-{number}-{seed}"


def trained(asked: argparse.Namespace, number: int, words: list[str], seed: int) -> None:
    name = run_of(asked, number, seed)
    if validated(name) is None:
        fixed = [f"data.root={asked.root}", "data.split=drive", f"augmentation.warp.size={asked.size}"]
        length = [f"trainer.steps={asked.steps}", f"seed={seed}", f"name={name}", "resume=auto"]
        segtrain("train", "experiment=camvid_lite0", *words, *fixed, *length)


def validated(name: str) -> dict[str, float] | None:
    """Scores at the end of a training, {"miou": …, "iou/CLASS": …}; None if it has not come to its end."""
    path = Path("outputs") / name / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    prefix = "val/"
    found = [{k.removeprefix(prefix): v for k, v in line.items() if k.startswith(prefix)} for line in lines]
    return next((scores for scores in found if scores), None)


def evaluated(name: str, views: str, words: list[str]) -> None:
    folder = f"outputs/{name}/study/{views}"
    if not (Path(folder) / "scores.json").exists():
        last = ["checkpoint=last", "evaluate.pictures=0", "bootstrap=0"]
        segtrain("evaluate", f"run=outputs/{name}", *last, *words, f"output={folder}")


def miou(name: str, views: str) -> float:
    return json.loads((Path("outputs") / name / "study" / views / "scores.json").read_text())["miou"]


def row(scores: list[float], base: list[float] | None) -> str:
    """Cells of the table: mean, deviation over seeds, and the paired difference with its interval."""
    compared = "" if base is None else difference(scores, base)
    return f"{statistics.mean(scores):.4f} | {statistics.stdev(scores):.4f} | {compared}"


def difference(scores: list[float], base: list[float]) -> str:
    """Mean of the paired differences with the 95 % interval of Student's t."""
    differences = [one - other for one, other in zip(scores, base, strict=True)]
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    verdict = ", not distinguishable" if low <= 0 <= high else ""
    return f"{statistics.mean(differences):+.4f} [{low:+.4f}, {high:+.4f}]{verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="folder of CamVid, with images/ and masks/")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of each training")
    parser.add_argument("--size", type=int, default=192, help="side of the crops in pixels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of each recipe")
    parser.add_argument("--name", default="study", help="runs are outputs/NAME-RECIPE-SEED")
    asked = parser.parse_args()
    seeds = asked.seeds
    for seed in seeds:  # seed by seed, so that a study that is stopped has pairs
        for number, words in enumerate(TRAINED.values()):
            trained(asked, number, words, seed)
        for number, words in enumerate(VIEWS.values()):
            evaluated(run_of(asked, 0, seed), f"views-{number}", words)
    said = f"{asked.steps} steps of 8 crops of {asked.size} px, seeds {', '.join(map(str, seeds))}"
    text = "\n".join([f"CamVid, split=drive, {said}", "", *table(asked)])
    path = Path("outputs") / asked.name / "study.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    print(f"\n{text}")


def table(asked: argparse.Namespace) -> list[str]:
    """The lines of the table, in Markdown."""
    seeds = asked.seeds
    ends = [[validated(run_of(asked, number, seed)) for seed in seeds] for number in range(len(TRAINED))]
    base, base_pole = ([one[score] for one in ends[0]] for score in ("miou", "iou/pole"))
    head = "| | mIoU | deviation over seeds | difference to the first [95 %] | IoU of poles, difference |"
    lines = [head, "|---|---|---|---|---|"]
    for what, recipe in zip(TRAINED, ends, strict=True):
        first = recipe is ends[0]
        cells = row([one["miou"] for one in recipe], None if first else base)
        pole = [one["iou/pole"] for one in recipe]
        compared = "" if first else f", {difference(pole, base_pole)}"
        lines.append(f"| {what} | {cells} | {statistics.mean(pole):.4f}{compared} |")
    for number, what in enumerate(VIEWS):
        cells = row([miou(run_of(asked, 0, seed), f"views-{number}") for seed in seeds], base)
        lines.append(f"| views: {what} | {cells} | |")
    return lines


if __name__ == "__main__":
    main()
