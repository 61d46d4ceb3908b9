"""A study on CamVid: losses, object augmentation and test-time augmentation, compared over paired seeds.

    python scripts/study.py --root CAMVID

Each recipe changes one thing in `experiment=camvid_lite0` and is trained with the same seeds on split=drive.
The difference of a recipe to the first one is taken seed by seed; its 95 % interval is that of Student's t.
What has been trained or evaluated before is not done again, so the study may be stopped and started at any
time. The table is printed and written to outputs/NAME/study.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
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
    "with an EMA of the weights": ["trainer.ema=0.99"],
    "with clDice of poles": ["loss.terms.cldice={classes:[pole]}"],
    "with larger weights between close objects": ["loss.terms.cross_entropy.border_weight=2"],
    "logits at stride 4 instead of 2": ["model.fine_width=null"],
    "half of the samples drawn by class": ["sampler.class_share=0.5"],
    "4 crops, of 352 px": ["augmentation.warp.size=352", "loader.batch_size=4"],
    "Jaccard with factor 3": ["loss.terms.jaccard.factor=3"],
    "Jaccard with factor 10": ["loss.terms.jaccard.factor=10"],
    "without class weights": ["loss.terms.cross_entropy.class_weights=none"],
    "with clDice of poles, factor 0.3": ["loss.terms.cldice={classes:[pole],factor:0.3}"],
    "with rotations up to 5 degrees": ["augmentation.warp.rotate=5"],
    "rate 0.002": ["optimizer.lr=0.002"],
    "rate 0.005": ["optimizer.lr=0.005"],
    "encoder at the full rate": ["optimizer.encoder_factor=1.0"],
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
    subprocess.run([SEGTRAIN, *arguments], check=True)


def run_of(asked: argparse.Namespace, number: int, seed: int) -> str:
    return f"{asked.name}-{number}-{seed}"


def trained(asked: argparse.Namespace, number: int, words: list[str], seed: int) -> None:
    name = run_of(asked, number, seed)
    if validated(name) is None:
        fixed = [f"data.root={asked.root}", "data.split=drive", f"augmentation.warp.size={asked.size}"]
        length = [f"trainer.steps={asked.steps}", f"seed={seed}", f"name={name}", "resume=auto"]
        segtrain("train", "experiment=camvid_lite0", *fixed, *words, *length)


def validated(name: str) -> dict[str, float] | None:
    """Scores of the one evaluation of a training, at its end, {"miou": …, "iou/CLASS": …}; None if it has not
    come to its end."""
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
    parser.add_argument("--jobs", type=int, default=1, help="trainings at the same time, on a large machine")
    numbers = range(len(TRAINED))
    parser.add_argument(
        "--recipes",
        type=int,
        nargs="+",
        default=[*numbers],
        choices=numbers,
        help="numbers from 0; 0 is needed",
    )
    numbers = range(len(VIEWS))
    parser.add_argument(
        "--views",
        type=int,
        nargs="*",
        default=[*numbers],
        choices=numbers,
        help="numbers from 0; none: no views",
    )
    asked = parser.parse_args()
    try:
        all_done(asked)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    write(asked)


def all_done(asked: argparse.Namespace) -> None:
    """Trains and evaluates what is missing, seed by seed, so that a study that is stopped has pairs."""
    recipes, views = list(TRAINED.values()), list(VIEWS.values())
    trainings = [(asked, n, recipes[n], seed) for seed in asked.seeds for n in asked.recipes]
    evaluations = [
        (run_of(asked, 0, seed), f"views-{n}", views[n]) for seed in asked.seeds for n in asked.views
    ]
    with ThreadPoolExecutor(asked.jobs) as pool:
        for function, calls in ((trained, trainings), (evaluated, evaluations)):
            try:
                for future in as_completed([pool.submit(function, *call) for call in calls]):
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def write(asked: argparse.Namespace) -> None:
    said = f"{asked.steps} steps of 8 crops of {asked.size} px, seeds {', '.join(map(str, asked.seeds))}"
    text = "\n".join([f"CamVid, split=drive, {said}", "", *table(asked)])
    path = Path("outputs") / asked.name / "study.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    print(f"\n{text}")


def table(asked: argparse.Namespace) -> list[str]:
    """The lines of the table, in Markdown."""
    seeds = asked.seeds
    names = list(TRAINED)
    ends = {n: [validated(run_of(asked, n, seed)) for seed in seeds] for n in asked.recipes}
    base, base_pole = ([one[score] for one in ends[0]] for score in ("miou", "iou/pole"))
    head = "| | mIoU | deviation over seeds | difference to the first [95 %] | IoU of poles, difference |"
    lines = [head, "|---|---|---|---|---|"]
    for number, recipe in ends.items():
        cells = row([one["miou"] for one in recipe], base if number else None)
        pole = [one["iou/pole"] for one in recipe]
        compared = f", {difference(pole, base_pole)}" if number else ""
        lines.append(f"| {names[number]} | {cells} | {statistics.mean(pole):.4f}{compared} |")
    views = list(VIEWS)
    for number in asked.views:
        cells = row([miou(run_of(asked, 0, seed), f"views-{number}") for seed in seeds], base)
        lines.append(f"| views: {views[number]} | {cells} | |")
    return lines


if __name__ == "__main__":
    main()
