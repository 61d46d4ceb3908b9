"""What the tasks of labels draw, and what they write."""

import numpy as np
import pytest

from segtrain.errors import ConfigError
from segtrain.sample import UNLABELLED, Facts
from segtrain.task import TASK, task_of

RED, GREEN = (255, 0, 0), (0, 255, 0)
FACTS = Facts(("road", "water"), (RED, GREEN))


def test_a_pixel_of_several_labels_has_stripes():
    labels = np.zeros((9, 9, 2), np.uint8)
    labels[:3, :, 0] = 1
    labels[3:6, :, 1] = 1
    labels[6:] = 1
    labels[8, 0] = 255
    labels[8, 1] = (255, 1)
    labels[0, 0] = 0
    picture = TASK.build({"name": "multilabel"}).picture(labels, FACTS)
    assert (picture[0, 1:] == RED).all() and (picture[1:3] == RED).all() and (picture[3:6] == GREEN).all()
    both = picture[6:8].reshape(-1, 3)
    assert {tuple(one) for one in both.tolist()} == {RED, GREEN}
    assert tuple(picture[0, 0]) == (0, 0, 0) and tuple(picture[8, 0]) == UNLABELLED
    assert tuple(picture[8, 1]) == GREEN


def test_errors_are_of_known_labels():
    target = np.array([[[0, 1], [255, 1], [255, 255], [255, 0]]], np.uint8)
    prediction = np.array([[[0, 1], [1, 0], [1, 1], [1, 0]]], np.uint8)
    drawn = TASK.build({"name": "multilabel"}).errors(target, prediction, FACTS)
    assert drawn[0].tolist() == [[225] * 3, [200, 30, 30], [255] * 3, [225] * 3]


def test_a_file_for_each_label_and_only_below_the_output():
    task = TASK.build({"name": "multilabel"})
    prediction = np.random.default_rng(0).integers(0, 2, (4, 5, 2), dtype=np.uint8)
    stored = task.stored(prediction, FACTS, {})
    assert list(stored) == ["road", "water"]
    assert np.array_equal(stored["water"], 255 * prediction[..., 1])
    for name in ("../x", "", ".", "..", "a/b", "a\\b", ".hidden"):
        with pytest.raises(ConfigError, match="cannot be the name of a folder"):
            task.stored(prediction, Facts((name, "water"), (RED, GREEN)), {})


def test_binary_masks_have_the_values_of_the_data_set():
    task, prediction = TASK.build({"name": "binary"}), np.array([[0, 1]], np.uint8)
    for label_map, on in (
        ({0: 0, 255: 1}, 255),
        ({"0": 0, "255": 1}, 255),
        ({0: 0, 1: 1, 255: 255}, 1),
        (None, 1),
    ):
        assert task.stored(prediction, FACTS, {"label_map": label_map})[""].tolist() == [[0, on]]


def test_the_task_of_a_checkpoint_has_its_thresholds():
    described = {"config": {"task": {"name": "multilabel"}}, "facts": FACTS.plain(), "step": 7}
    assert task_of({**described, "thresholds": [0.25, 0.75]}).thresholds == (0.25, 0.75)
    assert task_of({**described, "thresholds": None}).thresholds == (0.5, 0.5)
    fixed = {**described, "config": {"task": {"name": "multilabel", "threshold": 0.25}}}
    assert task_of(fixed).thresholds == (0.25,)
    semantic = {**described, "config": {"task": {"name": "semantic"}}}
    assert task_of(semantic).thresholds is None
