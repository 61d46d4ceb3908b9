"""Drawn scenes: the same for the same seed, labelled as drawn, and not to be told by colour."""

import time

import cv2
import numpy as np
import pytest
import torch

from segtrain.data import DATA
from segtrain.data.shapes import CLASSES, outline
from segtrain.errors import ConfigError
from segtrain.sample import IGNORE


def scenes(count=20, **options):
    split = DATA.build({"name": "shapes", **options}).splits["train"]
    return [split[index] for index in range(count)]


def test_a_scene_is_a_function_of_seed_split_and_index():
    data, again, other = (DATA.build({"name": "shapes", "seed": seed}) for seed in (3, 3, 4))
    for part in ("train", "val"):
        first, second = data.splits[part][5], again.splits[part][5]
        for name in ("image", "target", "instances"):
            assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(data.splits["train"][5].image, data.splits["val"][5].image)
    assert not np.array_equal(data.splits["train"][5].image, other.splits["train"][5].image)


def test_scenes_hold_every_class_and_nothing_else():
    samples = scenes(40)
    values = np.unique([sample.target for sample in samples])
    assert values.tolist() == [*range(len(CLASSES)), IGNORE]
    for sample in samples:
        assert sample.image.dtype == np.uint8 and sample.image.shape == (128, 128, 3)
        assert sample.target.dtype == np.uint8 and sample.instances.dtype == np.uint16


def test_each_instance_is_of_one_class_and_an_ignored_border_parts_it_from_the_ground_outside():
    for sample in scenes(10):
        assert np.array_equal(sample.instances > 0, (sample.target > 0) & (sample.target != IGNORE))
        for number in range(1, sample.instances.max() + 1):
            inside = (sample.instances == number).astype(np.uint8)
            assert inside.any() and len(np.unique(sample.target[inside > 0])) == 1
            near = cv2.dilate(inside, np.ones((3, 3), np.uint8)) > 0
            assert set(np.unique(sample.instances[near]).tolist()) <= {0, number}
        # From the corner, ground reaches no object pixel without crossing the border.
        ground = np.pad((sample.target == 0).astype(np.uint8), 1, constant_values=1)
        outside = cv2.connectedComponents(ground, connectivity=4)[1]
        reached = cv2.dilate(
            (outside == outside[0, 0]).astype(np.uint8), np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
        )
        assert not (reached[1:-1, 1:-1].astype(bool) & (sample.instances > 0)).any()


def test_outlines_have_the_area_that_geometry_says():
    """cv2 paints every pixel that the outline touches, so the drawn shape is about half a pixel larger all
    round."""
    radius = 40.0
    for name, area, length in (
        ("disc", np.pi * radius**2, 2 * np.pi * radius),
        ("triangle", 0.75 * np.sqrt(3) * radius**2, 3 * np.sqrt(3) * radius),
    ):
        drawn = np.mean([outline(name, 44, radius, angle).sum() for angle in np.linspace(0, 3, 20)])
        assert area < drawn < area + 0.8 * length


def test_the_size_needs_no_drawing_and_scenes_scale():
    split = DATA.build({"name": "shapes", "size": 96}).splits["train"]
    assert split.size(0) == (96, 96) == split[0].target.shape
    with pytest.raises(IndexError):
        split[len(split)]


@pytest.mark.parametrize("option", ["size", "num_train", "num_val", "objects"])
def test_numbers_out_of_range(option):
    with pytest.raises(ConfigError, match=rf"data\.{option} is 0"):
        DATA.build({"name": "shapes", option: 0})


def mean_iou(truth, found, count):
    matrix = np.bincount(truth * count + found, minlength=count * count).reshape(count, count)
    hits = np.diag(matrix)
    return (hits / np.maximum(matrix.sum(0) + matrix.sum(1) - hits, 1)).mean()


def classifier(pixels, labels, balanced):
    """Multinomial logistic regression by L-BFGS; gives the function that classifies."""
    pixels, labels = torch.from_numpy(pixels).float(), torch.from_numpy(labels)
    weights = len(labels) / torch.bincount(labels, minlength=len(CLASSES)) if balanced else None
    layer = torch.nn.Linear(pixels.shape[1], len(CLASSES))
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=80, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(layer(pixels), labels, weights)
        loss.backward()
        return loss

    optimizer.step(closure)
    return lambda other: layer(torch.from_numpy(other).float()).argmax(1).numpy()


@pytest.mark.parametrize("balanced", [False, True])
def test_colour_does_not_give_the_class_away(balanced):
    """Logistic regression on a pixel's RGB and their products, trained and scored as the networks are."""
    rng = np.random.default_rng(0)
    pixels, labels = [], []
    for sample in scenes(60):
        known = np.flatnonzero(sample.target.ravel() != IGNORE)
        chosen = rng.choice(known, 1500)
        rgb = sample.image.reshape(-1, 3)[chosen] / 255.0
        pixels.append(np.column_stack([rgb, rgb**2, rgb[:, [0]] * rgb[:, 1:], rgb[:, [1]] * rgb[:, [2]]]))
        labels.append(sample.target.ravel()[chosen].astype(int))
    half = 40 * 1500
    pixels, labels = np.concatenate(pixels), np.concatenate(labels)
    classify = classifier(pixels[:half], labels[:half], balanced)
    assert mean_iou(labels[half:], classify(pixels[half:]), len(CLASSES)) <= 0.40


def test_drawing_is_quick():
    split = DATA.build({"name": "shapes"}).splits["train"]
    split[0]
    start = time.process_time()
    for index in range(50):
        split[index]
    assert (time.process_time() - start) / 50 < 0.012  # about 2 ms on an idle machine
