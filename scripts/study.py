"""A study on CamVid: losses, object augmentation and test-time augmentation, compared over paired seeds.

    python scripts/study.py --root CAMVID --steps 300

Each recipe changes one thing in `experiment=camvid_lite0` and is trained with the same seeds on
split=drive. The difference of a recipe to the first one is taken seed by seed; its 95 % interval is that of
Student's t. What has been trained or evaluated before is not done again, so the study may be stopped and
started at any time. The table is printed and written to outputs/NAME/study.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

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
STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""0.975 quantile of Student's t for so many seeds (one degree of freedom less)."""


def segtrain(*arguments: str) -> None:
    print(f"\n$ segtrain {shlex.join(arguments)}", flush=True)
    ended = subprocess.run([SEGTRAIN, *arguments])
    if ended.returncode:
        sys.exit(ended.returncode)


def run_of(asked: argparse.Namespace, number: int, seed: int) -> str:
    return f"{asked.name}-{number}-{seed}"


def trained(asked: argparse.Namespace, number: int, words: list[str], seed: int) -> None:
    name = run_of(asked, number, seed)
    if (Path("outputs") / name / "study" / "none" / "scores.json").exists():
        return
    fixed = [f"data.root={asked.root}", "data.split=drive", f"augmentation.warp.size={asked.size}"]
    length = [f"trainer.steps={asked.steps}", f"seed={seed}", f"name={name}", "resume=auto"]
    segtrain("train", "experiment=camvid_lite0", *words, *fixed, *length)
    evaluated(name, "none", [])


def evaluated(name: str, kind: str, words: list[str]) -> None:
    folder = f"outputs/{name}/study/{kind}"
    if not (Path(folder) / "scores.json").exists():
        last = ["checkpoint=last", "evaluate.pictures=0", "bootstrap=0"]
        segtrain("evaluate", f"run=outputs/{name}", *last, *words, f"output={folder}")


def miou(name: str, kind: str = "none") -> float:
    return json.loads((Path("outputs") / name / "study" / kind / "scores.json").read_text())["miou"]


def row(what: str, scores: list[float], base: list[float] | None) -> str:
    """A line of the table: mean, deviation over seeds, and the paired difference with its interval."""
    spread = f"| {what} | {statistics.mean(scores):.4f} | {statistics.stdev(scores):.4f} |"
    if base is None:
        return f"{spread} |"
    differences = [one - other for one, other in zip(scores, base, strict=True)]
    half = STUDENT_T[len(scores)] * statistics.stdev(differences) / len(scores) ** 0.5
    mean = statistics.mean(differences)
    verdict = "" if abs(mean) > half else ", not distinguishable"
    return f"{spread} {mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]{verdict} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="folder of CamVid, with images/ and masks/")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of each training")
    parser.add_argument("--size", type=int, default=192, help="side of the crops in pixels")
    parser.add_argument("--seeds", type=int, default=5, choices=STUDENT_T, help="seeds of each recipe")
    parser.add_argument("--name", default="study", help="runs are outputs/NAME-RECIPE-SEED")
    asked = parser.parse_args()
    seeds = range(asked.seeds)
    for seed in seeds:  # seed by seed, so that a study that is stopped has pairs
        for number, words in enumerate(TRAINED.values()):
            trained(asked, number, words, seed)
        for number, words in enumerate(VIEWS.values()):
            evaluated(run_of(asked, 0, seed), f"views-{number}", words)
    base = [miou(run_of(asked, 0, seed)) for seed in seeds]
    head = "| | mIoU | deviation over seeds | difference to the first [95 %] |"
    lines = [head, "|---|---|---|---|"]
    for number, what in enumerate(TRAINED):
        scores = [miou(run_of(asked, number, seed)) for seed in seeds]
        lines.append(row(what, scores, base if number else None))
    for number, what in enumerate(VIEWS):
        scores = [miou(run_of(asked, 0, seed), f"views-{number}") for seed in seeds]
        lines.append(row(f"views: {what}", scores, base))
    length = f"{asked.steps} steps of 8 crops of {asked.size} px"
    said = f"CamVid, split=drive, {length}, seeds 0 to {asked.seeds - 1}"
    text = "\n".join([said, "", *lines])
    path = Path("outputs") / asked.name / "study.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
