"""Scores over batches, by hand."""

import pytest
import torch

from segtrain.evaluate import evaluate, lines, record, spread
from segtrain.loader import Batch
from segtrain.metric import METRIC
from segtrain.sample import IGNORE, Facts

FACTS = Facts(classes=("ground", "tree", "snow"), palette=((0, 0, 0), (0, 255, 0), (255, 255, 255)))


def batches():
    """Two images whose pixel values are the answers; the last place of the second batch is filled up and ignored."""
    first = torch.tensor([[[0, 1], [1, 1]]], dtype=torch.uint8)
    second = torch.tensor([[[0, 0], [0, 1]]], dtype=torch.uint8)
    yield Batch(first[:, None], torch.tensor([[[0, 0], [1, 1]]], dtype=torch.uint8), ["a"], [0], 1)
    both = torch.cat([second, second])
    targets = torch.cat([torch.tensor([[[0, 0], [IGNORE, 1]]], dtype=torch.uint8), torch.full((1, 2, 2), IGNORE, dtype=torch.uint8)])
    yield Batch(both[:, None], targets, ["b", "b"], [1, 1], 1)


@pytest.fixture
def scores():
    metric = METRIC.build({"name": "confusion"}, num_classes=3, ignore_index=IGNORE)
    return evaluate(lambda images: images, lambda images: images[:, 0].long(), metric, batches(), torch.device("cpu"), "union", {1})


def test_counts_add_up_and_filled_places_do_not_count(scores):
    # Labelled: 0 0 1 1 and 0 0 1. Answered: 0 1 1 1 and 0 0 1. Class 0: 3 right, 4 labelled; class 1: 3 right, 4 answered.
    assert scores.numbers["iou"] == [pytest.approx(3 / 4), pytest.approx(3 / 4), None]
    assert scores.numbers["pixel_accuracy"] == pytest.approx(6 / 7) and scores.protocol["images"] == 2


def test_only_the_wanted_pictures_are_kept(scores):
    ((image, target, prediction),) = scores.pictures
    assert image.shape == (2, 2, 1) and target.tolist() == [[0, 0], [IGNORE, 1]] and prediction.tolist() == [[0, 0], [0, 1]]


def test_the_table_and_the_record_name_the_classes(scores):
    text = "\n".join(lines(scores.numbers, FACTS))
    assert "tree    0.7500  0.8571    1.0000" in text and "snow         -       -         -" in text
    assert "1 of 3 classes absent" in text
    kept = record(scores, FACTS)
    assert kept["iou"] == {"ground": 0.75, "tree": 0.75, "snow": None} and kept["protocol"]["absent"] == "union"


@pytest.mark.parametrize(("count", "wanted", "indices"), [(10, 2, {2, 7}), (3, 4, {0, 1, 2}), (101, 1, {50}), (5, 0, set())])
def test_pictures_are_spread_over_the_split(count, wanted, indices):
    assert spread(count, wanted) == indices
