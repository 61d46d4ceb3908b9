"""The scores of the Cityscapes benchmark, against the numbers of its own script (cityscapes/make_scores.py)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.data.cityscapes import CLASS_LISTS, FIRST_OBJECT, LABELS, objects
from segtrain.errors import ConfigError
from segtrain.loader.reader import EvaluationReader
from segtrain.metric import METRIC
from segtrain.metric.cityscapes import BASE, CATEGORIES, OBJECTS
from segtrain.sample import IGNORE, Facts, Sample

PLACE = Path(__file__).parent / "cityscapes"
EXPECTED = json.loads((PLACE / "scores.json").read_text())
NAMES = sorted(set(EXPECTED) - {"all"})
CLASSES = CLASS_LISTS["19"].names
FACTS = Facts(classes=CLASSES, palette=((0, 0, 0),) * 19)


def read(name, kind):
    return np.asarray(Image.open(PLACE / f"{name}_{kind}.png"))


def indices(ids, classes):
    table = np.full(256, IGNORE, np.uint8)
    for label in LABELS:
        if label.evaluated:
            table[label.id] = classes.index(label.name)
    return torch.from_numpy(table[ids])[None]


def metrics(classes=CLASSES, **runtime):
    facts = Facts(classes=classes, palette=FACTS.palette)
    chosen = {"confusion": {}, "cityscapes": {}}
    built = METRIC.build_each(chosen, num_classes=19, ignore_index=IGNORE, facts=facts, **runtime)
    return dict(zip(chosen, built, strict=True))


def scores(names, classes=CLASSES, **runtime):
    found = {}
    for metric in metrics(classes, **runtime).values():
        counts = 0
        for name in names:
            evidence = {
                "decisions": indices(read(name, "pred"), classes),
                "instances": torch.from_numpy(objects(read(name, "gtFine_instanceIds")))[None],
            }
            target = indices(read(name, "gtFine_labelIds"), classes)
            counts = counts + metric.counts(target, **{need: evidence[need] for need in metric.needs})
        assert counts.shape[0] == 1
        found |= metric.scores(counts[0])
    return found


@pytest.mark.parametrize("classes", [CLASSES, CLASSES[::-1]], ids=["in order", "in another order"])
@pytest.mark.parametrize("which", EXPECTED)
def test_scores_equal_the_official_script(which, classes):
    ours, theirs = scores(NAMES if which == "all" else [which], classes), EXPECTED[which]
    by_class = {"iou": "classScores", "iiou": "classInstScores"}
    for key, official in by_class.items():
        expected = [theirs[official][name] for name in classes]
        assert list(ours[key].values) == pytest.approx(expected, abs=1e-12), key
    by_category = {"category_iou": "categoryScores", "category_iiou": "categoryInstScores"}
    for key, official in by_category.items():
        assert {**dict(zip(ours[key].groups, ours[key].values, strict=True)), "void": None} == pytest.approx(
            theirs[official], abs=1e-12
        ), key
    means = {
        "miou": "averageScoreClasses",
        "miiou": "averageScoreInstClasses",
        "category_miou": "averageScoreCategories",
        "category_miiou": "averageScoreInstCategories",
    }
    for key, official in means.items():
        assert ours[key].value == pytest.approx(theirs[official], abs=1e-12), key


def test_the_pairs_hold_absent_classes_and_ignored_objects():
    assert EXPECTED[NAMES[2]]["classScores"]["train"] is None  # neither labelled nor predicted
    assert EXPECTED["all"]["classScores"]["train"] is not None
    numbers = {int(number) for name in NAMES for number in np.unique(read(name, "gtFine_instanceIds"))}
    assert {24, 29, 30} <= {number // 1000 for number in numbers}  # persons, caravans, trailers
    assert {24, 26} & numbers  # a group of objects, without a number


def test_decisions_of_no_class_are_missed_pixels_only():
    """By hand: a car of 10 pixels, of which 4 are right, 3 are a bus and 3 are no class; beside it 10 pixels of
    road, right."""
    car, bus, road = (CLASSES.index(name) for name in ("car", "bus", "road"))
    target = torch.tensor([[[car] * 10 + [road] * 10]])
    decisions = torch.tensor([[[car] * 4 + [bus] * 3 + [19] * 3 + [road] * 10]])
    instances = torch.tensor([[[26007] * 10 + [0] * 10]], dtype=torch.int32).to(torch.uint16)
    metric = metrics(num_answers=20)["cityscapes"]
    found = metric.scores(metric.counts(target, decisions=decisions, instances=instances)[0])
    iiou = dict(zip(CLASSES, found["iiou"].values, strict=True))
    assert iiou["car"] == pytest.approx(0.4) and iiou["road"] is None
    assert iiou["bus"] == 0.0  # three false positives
    categories = found["category_iiou"].groups
    assert found["category_iiou"].values[categories.index("vehicle")] == pytest.approx(0.7)
    assert found["category_iou"].values[categories.index("vehicle")] == pytest.approx(0.7)
    assert found["category_iou"].values[categories.index("flat")] == 1.0


def test_without_objects_there_is_no_iiou():
    metric = metrics()["cityscapes"]
    plain = torch.zeros(1, 4, 4, dtype=torch.uint8)
    counts = metric.counts(plain, decisions=plain, instances=torch.zeros(1, 4, 4, dtype=torch.uint16))
    found = metric.scores(counts[0])
    assert found["miiou"].value is None and found["category_miou"].value == 1.0


def test_filled_places_of_a_batch_hold_no_object():
    sample = Sample(
        np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8), np.full((2, 2), 24001, np.uint16)
    )
    batch = EvaluationReader([sample], {0: 2}, IGNORE).batch([0])
    assert batch.instances[0].tolist() == [[24001] * 2] * 2 and batch.instances[1].tolist() == [[0] * 2] * 2


def test_classes_and_ids_are_those_of_the_data_set():
    evaluated = [label for label in LABELS if label.evaluated]
    assert {(one.category, one.name) for one in evaluated} == {
        (category, name) for category, names in CATEGORIES.items() for name in names
    }
    assert {one.name: one.id for one in evaluated if one.objects} == {
        name: one.id for name, one in OBJECTS.items()
    }
    assert FIRST_OBJECT == BASE


def test_other_classes_are_refused():
    facts = Facts(classes=(*CLASSES[:-1], "bike"), palette=FACTS.palette)
    with pytest.raises(ConfigError, match=r"19 classes of Cityscapes.*'bicycle' is one of them and missing"):
        METRIC.build({"name": "cityscapes"}, facts=facts)
