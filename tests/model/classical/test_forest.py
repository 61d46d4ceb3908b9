"""The forest as tensors, against scikit-learn's own answers."""

import numpy as np
import pytest
import torch

from segtrain.errors import CheckpointError
from segtrain.model.classical import forest as module
from segtrain.model.classical.forest import Forest

ensemble = pytest.importorskip("sklearn.ensemble")


def data(count: int, classes=(0, 2, 3), features: int = 7):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, features)).astype(np.float32)
    x[:, 0] = x[:, 0].round(1)  # equal values, and thresholds half-way between them
    return x, np.array(classes)[(x[:, 0] + x[:, 1] > 0).astype(int) + (x[:, 2] > 1)]


@pytest.fixture(scope="module")
def both():
    x, y = data(600)
    theirs = ensemble.RandomForestClassifier(
        15, min_samples_leaf=3, class_weight="balanced_subsample", random_state=0
    ).fit(x, y)
    ours = Forest(5, 7)
    ours.take(theirs)
    return theirs, ours


def test_probabilities_are_scikit_learns(both, monkeypatch):
    theirs, ours = both
    monkeypatch.setattr(module, "ROWS", 100)  # several parts, the last one smaller
    x = np.concatenate([data(600)[0], np.random.default_rng(1).normal(size=(437, 7)).astype(np.float32)])
    found, expected = ours(x), theirs.predict_proba(x)
    assert found.shape == (1037, 5) and np.abs(found[:, theirs.classes_] - expected).max() < 1e-6
    assert not found[:, [1, 4]].any() and np.abs(found.sum(1) - 1).max() < 1e-6


def test_values_on_a_threshold_go_the_same_way(both):
    theirs, ours = both
    thresholds = np.concatenate(
        [tree.tree_.threshold[tree.tree_.feature == 0] for tree in theirs.estimators_]
    )
    x = np.zeros((3 * len(thresholds), 7), np.float32)
    near = thresholds.astype(np.float32)
    x[:, 0] = np.concatenate([near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9))])
    assert np.abs(ours(x)[:, theirs.classes_] - theirs.predict_proba(x)).max() < 1e-6


def test_a_tree_of_one_leaf():
    x, y = data(20)
    theirs = ensemble.RandomForestClassifier(2, min_samples_leaf=20, random_state=0).fit(x, y)
    ours = Forest(4, 7)
    ours.take(theirs)
    assert len(ours.left) == 2 and np.abs(ours(x)[:, theirs.classes_] - theirs.predict_proba(x)).max() < 1e-6


def test_fit_is_a_function_of_its_seed_whatever_the_threads():
    x, y = data(200)
    one, other = Forest(4, 7), Forest(4, 7)
    one.fit(x, y, 5, 2, jobs=1, seed=3)
    other.fit(x, y, 5, 2, jobs=2, seed=3)
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_an_empty_forest_takes_a_fitted_ones_tensors(both):
    _, ours = both
    weights = {f"forest.{name}": tensor for name, tensor in ours.state_dict().items()}
    fresh = Forest(5, 7)
    assert not fresh.fitted
    fresh.resize_for(weights, "forest.")
    fresh.load_state_dict(ours.state_dict())
    x = data(50)[0]
    assert fresh.fitted and np.array_equal(fresh(x), ours(x))


def backwards(weights):
    inner = int(torch.nonzero(weights["left"] >= 0)[-1])
    weights["left"][inner] = 0  # a walk without end


def beyond(weights):
    weights["right"][0] = len(weights["right"])


def no_such_feature(weights):
    weights["feature"][0] = 7


def no_such_root(weights):
    weights["roots"][0] = -1


def too_few_leaves(weights):
    weights["values"] = weights["values"][:, 1:]


def missing(weights):
    del weights["threshold"]


@pytest.mark.parametrize(
    "damage", [backwards, beyond, no_such_feature, no_such_root, too_few_leaves, missing]
)
def test_trees_that_lead_nowhere_are_refused(both, damage):
    weights = {name: tensor.clone() for name, tensor in both[1].state_dict().items()}
    damage(weights)
    with pytest.raises(CheckpointError, match="forest"):
        Forest(5, 7).resize_for(weights, "")
