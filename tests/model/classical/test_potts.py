"""Labellings of small graphs, against trying all of them."""

import itertools

import numpy as np
import pytest

from segtrain.model.classical.potts import (
    agreement,
    alpha_expansion,
    contrast_weights,
    energy,
    iterated_conditional_modes,
)

pytest.importorskip("maxflow")
SOLVERS = [alpha_expansion, iterated_conditional_modes]


def grid(height: int, width: int) -> np.ndarray:
    number = np.arange(height * width).reshape(height, width)
    across, down = (number[:, :-1], number[:, 1:]), (number[:-1], number[1:])
    return np.concatenate([np.stack([a.ravel(), b.ravel()], 1) for a, b in (across, down)])


def problem(seed: int, num_labels: int, height: int = 3, width: int = 3):
    rng = np.random.default_rng(seed)
    edges = grid(height, width)
    return rng.exponential(size=(height * width, num_labels)), edges, rng.uniform(0, 0.8, len(edges))


def least(cost, edges, weights) -> float:
    return min(
        energy(cost, edges, weights, np.array(y))
        for y in itertools.product(range(cost.shape[1]), repeat=len(cost))
    )


def test_energy_by_hand():
    cost = np.array([[1.0, 2.0], [4.0, 0.5], [0.0, 3.0]])
    edges, weights = np.array([[0, 1], [1, 2]]), np.array([0.25, 8.0])
    assert energy(cost, edges, weights, np.array([0, 1, 0])) == 1 + 0.5 + 0 + 0.25 + 8
    assert energy(cost, edges, weights, np.array([1, 1, 1])) == 2 + 0.5 + 3


@pytest.mark.parametrize("seed", range(8))
def test_expansion_of_two_labels_is_exact(seed):
    one = problem(seed, 2)
    assert energy(*one, alpha_expansion(*one)) == pytest.approx(least(*one), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_expansion_of_three_labels_is_within_its_bound_and_mostly_exact(seed):
    one = problem(seed, 3, 2, 4)
    found, best = energy(*one, alpha_expansion(*one)), least(*one)
    assert best - 1e-9 <= found <= 1.02 * best


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("seed", range(4))
def test_no_single_node_could_do_better(solve, seed):
    cost, edges, weights = problem(seed, 4, 6, 7)
    labels = solve(cost, edges, weights)
    alone = cost - agreement(labels, 4, edges, weights)
    assert np.array_equal(alone.argmin(1), labels)
    assert energy(cost, edges, weights, labels) < energy(cost, edges, weights, cost.argmin(1))


def test_expansion_is_at_least_as_good_as_single_changes():
    better = 0
    for seed in range(10):
        one = problem(seed, 4, 6, 7)
        ours, icm = (energy(*one, solve(*one)) for solve in SOLVERS)
        assert ours <= icm + 1e-9
        better += ours < icm - 1e-9
    assert better > 5


@pytest.mark.parametrize("solve", SOLVERS)
def test_without_weight_every_node_takes_its_cheapest(solve):
    cost, edges, weights = problem(0, 4, 5, 5)
    assert np.array_equal(solve(cost, edges, 0 * weights), cost.argmin(1))


def test_a_huge_weight_gives_one_label_the_cheapest_for_all():
    cost, edges, weights = problem(0, 4, 5, 5)
    labels = alpha_expansion(cost, edges, 1e3 + weights)
    assert set(labels.tolist()) == {int(cost.sum(0).argmin())}


@pytest.mark.parametrize("solve", SOLVERS)
def test_a_graph_without_edges(solve):
    none = np.zeros((0, 2), np.int64)
    assert solve(np.array([[1.0, 0.0]]), none, np.zeros(0)).tolist() == [1]


def test_weights_fall_with_the_contrast():
    values = np.array([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    edges = np.array([[0, 1], [1, 2]])
    # The squared differences are 0 and 25, their mean 12.5.
    assert contrast_weights(values, edges, 2.0) == pytest.approx([2.0, 2 * np.exp(-1)])
    assert contrast_weights(values[:2], edges[:1], 2.0) == pytest.approx([2.0])
    assert len(contrast_weights(values, np.zeros((0, 2), np.int64), 2.0)) == 0
