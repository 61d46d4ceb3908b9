"""Repeats and draws by class: counts by hand, and batches that depend on seed and position alone."""

import numpy as np
import pytest
import torch

from segtrain.augmentation import AUGMENTATION
from segtrain.data.survey.stats import class_pixels
from segtrain.errors import ConfigError
from segtrain.loader.draws import UNIFORM, Draws, draws_of, repeat_factors
from segtrain.loader.loader import training_batches
from segtrain.loader.order import Order
from segtrain.sample import IGNORE, Sample
from segtrain.settings import Loader, Sampler


class Scenes:
    """20 images of 60x60: class 0 everywhere, class 1 below, class 2 as a speck of 3x3 in images 4 and 11."""

    def __len__(self):
        return 20

    def name(self, index):
        return f"scene-{index}"

    def size(self, index):
        return 60, 60

    def __getitem__(self, index):
        target = np.zeros((60, 60), np.uint8)
        target[40:] = 1
        if index in (4, 11):
            target[5 + index : 8 + index, 3 * index : 3 * index + 3] = 2
        image = np.full((60, 60, 3), index, np.uint8)
        return Sample(image, target, name=self.name(index))


def draws(**settings) -> Draws:
    return draws_of(Sampler(**settings), lambda: class_pixels(Scenes(), 3))


def test_repeat_factors_by_hand():
    """LVIS, section 5.1: f = 1, 0.5, 0.04; t = 0.16 gives sqrt(0.16 / 0.04) = 2 and nothing below 1."""
    present = np.zeros((25, 3), bool)
    present[:, 0] = present[::2, 1] = present[7, 2] = True
    assert repeat_factors(present, 0.16).tolist() == [2.0 if image == 7 else 1.0 for image in range(25)]
    present[7] = False  # an image without any label
    assert repeat_factors(present, 0.16).tolist() == [1.0] * 25


def test_an_epoch_holds_each_sample_as_often_as_its_factor_says():
    factors = np.array([1.0, 2.5, 1.0, 1.25, 3.0])
    order = Order(5, 0, Draws(repeats=factors))
    length = 9  # the sum, 8.75, rounded up
    epochs = [
        np.bincount([order.index(length * epoch + place) for place in range(length)], minlength=5)
        for epoch in range(300)
    ]
    assert all(np.all(counts >= np.floor(factors)) for counts in epochs)
    assert all(np.all(counts <= np.ceil(factors * 9 / 8.75)) for counts in epochs)
    assert np.abs(np.mean(epochs, axis=0) - factors * 9 / 8.75).max() < 0.1
    orders = [[order.index(length * epoch + place) for place in range(length)] for epoch in range(2)]
    assert orders[0] != orders[1]


def test_without_a_sampler_nothing_changes_and_no_mask_is_read():
    assert draws_of(Sampler(), lambda: pytest.fail("read")) is UNIFORM
    order = np.random.default_rng([7, 1, 2]).permutation(20)
    drawn = [Order(20, 7).drawn(40 + place) for place in range(20)]
    assert [one.index for one in drawn] == order.tolist() and {one.focus for one in drawn} == {None}


def test_classes_are_drawn_and_then_images_that_hold_them():
    order = Order(20, 3, draws(class_share=0.5))
    drawn = [order.drawn(position) for position in range(3000)]
    by_class = [one for one in drawn if one.focus is not None]
    assert abs(len(by_class) / 3000 - 0.5) < 0.04
    assert np.abs(np.bincount([one.focus for one in by_class]) / len(by_class) - 1 / 3).max() < 0.05
    rare = [one.index for one in by_class if one.focus == 2]
    assert set(rare) == {4, 11} and abs(np.mean(np.array(rare) == 4) - 0.5) < 0.1
    totals = class_pixels(Scenes(), 3).sum(axis=0)
    weights = draws(class_share=0.5, class_draw="sqrt_inverse").class_probabilities
    assert weights == pytest.approx((1 / np.sqrt(totals)) / (1 / np.sqrt(totals)).sum())


def batches(sampler: Draws, workers=0, start=0, seed=0, size=16):
    ops = AUGMENTATION.build_each({"warp": {"size": size, "scale": [1.0, 1.0]}}, ignore_index=IGNORE)
    return training_batches(Scenes(), ops, Loader(batch_size=6, workers=workers), seed, start, draws=sampler)


def test_the_crop_contains_the_class_that_its_image_was_drawn_for():
    order = Order(20, 0, draws(class_share=1.0))
    held = 0
    with batches(draws(class_share=1.0)) as found:
        for _ in range(20):
            batch = next(found)
            for position, target in zip(batch.positions, batch.targets, strict=True):
                focus = order.drawn(position).focus
                assert (target == focus).any(), (position, focus)
                held += focus == 2
    assert held > 20


@pytest.mark.parametrize(
    "sampler",
    [{"class_share": 0.5}, {"repeat_threshold": 0.5}, {"class_share": 0.3, "repeat_threshold": 0.4}],
    ids=str,
)
def test_batches_are_a_function_of_seed_and_position(sampler):
    sampler = draws(**sampler)
    with batches(sampler) as straight, batches(sampler, workers=2) as workers:
        expected = [next(straight) for _ in range(6)]
        same = [next(workers) for _ in range(6)]
    with batches(sampler, start=6 * 4) as resumed:
        same[4:] = [next(resumed) for _ in range(2)]
    for one, other in zip(expected, same, strict=True):
        assert one.names == other.names and torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
    with batches(sampler, seed=1) as others:
        assert next(others).names != expected[0].names


def test_classes_without_any_sample_are_not_drawn_and_no_label_at_all_is_an_error():
    found = draws_of(Sampler(class_share=0.5), lambda: np.array([[0, 4, 0], [0, 0, 0]]))
    assert found.class_probabilities.tolist() == [0, 1, 0] and found.by_class(np.random.default_rng(0)) == (
        0,
        1,
    )
    with pytest.raises(ConfigError, match="no sample of the training split has a label"):
        draws_of(Sampler(class_share=0.5), lambda: np.zeros((2, 3), np.int64))
