"""Writes the pairs beside this file and their scores by cityscapesScripts, evalPixelLevelSemanticLabeling.

pip install numpy pillow matplotlib pyquaternion && pip install --no-deps cityscapesscripts==2.3.0, then
python make_scores.py.
"""

import json
import math
from pathlib import Path

import numpy as np

np.in1d = np.isin  # removed from numpy, used by cityscapesScripts

import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling as official
from cityscapesscripts.helpers.labels import labels
from PIL import Image

HERE = Path(__file__).parent
HEIGHT, WIDTH = 64, 128
ANNOTATED = [label for label in labels if label.id >= 0]
EVALUATED = [label for label in labels if label.id >= 0 and not label.ignoreInEval]
NAMES = ("a_000000_000000", "a_000000_000001", "a_000000_000002")


def box(rng, largest):
    """A random rectangle, as a pair of slices."""
    height, width = rng.integers(2, largest, 2)
    top, left = rng.integers(0, HEIGHT - 2), rng.integers(0, WIDTH - 2)
    return slice(top, top + height), slice(left, left + width)


def annotation(rng, kinds):
    """Label ids and instance ids: boxes of some labels, those with instances numbered or in a group."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    instances = np.zeros((HEIGHT, WIDTH), np.uint16)
    numbers = dict.fromkeys(range(34), 0)
    for _ in range(150):
        label = kinds[rng.integers(len(kinds))]
        place = box(rng, 30)
        ids[place] = instances[place] = label.id
        if label.hasInstances and rng.random() < 0.8:  # the others are groups, which have no number
            instances[place] = label.id * 1000 + numbers[label.id]
            numbers[label.id] += 1
    return ids, instances


def prediction(rng, ids):
    """The annotation with ignored labels replaced and a third of it overpainted, all by evaluated labels."""
    allowed = np.array([label.id for label in EVALUATED], np.uint8)
    answer = np.where(np.isin(ids, allowed), ids, allowed[rng.integers(len(allowed), size=ids.shape)])
    for _ in range(40):
        answer[box(rng, 20)] = allowed[rng.integers(len(allowed))]
    return answer.astype(np.uint8)


def scores(names):
    official.args.quiet, official.args.JSONOutput = True, False
    found = official.evaluateImgLists(
        [str(HERE / f"{name}_pred.png") for name in names],
        [str(HERE / f"{name}_gtFine_labelIds.png") for name in names],
        official.args,
    )
    return {key: plain(value) for key, value in found.items() if "core" in key and key != "perImageScores"}


def plain(value):
    """Numbers, with null in the place of nan."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return None if math.isnan(value) else value


rng = np.random.default_rng(0)
rare = {"train", "bus", "rider", "wall"}
for name in NAMES:
    last = name == NAMES[2]  # without some classes, in the prediction too
    kinds = [label for label in ANNOTATED if not (last and label.name in rare)]
    ids, instances = annotation(rng, kinds)
    answer = prediction(rng, ids)
    if last:
        answer[np.isin(answer, [label.id for label in labels if label.name in rare])] = 7
    for pixels, kind in ((ids, "gtFine_labelIds"), (instances, "gtFine_instanceIds"), (answer, "pred")):
        Image.fromarray(pixels).save(HERE / f"{name}_{kind}.png", optimize=True)
expected = {"all": scores(NAMES), **{name: scores([name]) for name in NAMES}}
(HERE / "scores.json").write_text(json.dumps(expected, indent=1) + "\n")
