"""The Potts model: labellings of a graph in which neighbours prefer equal labels, by iterated conditional
modes or alpha-expansion.

The energy of labels y is Σ_i cost[i, y_i] + Σ_ij weight_ij [y_i ≠ y_j], over the edges ij (Boykov, Veksler &
Zabih 2001, eq. 1).
"""

from __future__ import annotations

import numpy as np

SWEEPS = 100


def energy(cost: np.ndarray, edges: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> float:
    """cost: N×C. edges: E×2 of 0..N-1, each once. weights: E, from 0. labels: N of 0..C-1."""
    disagree = labels[edges[:, 0]] != labels[edges[:, 1]]
    return float(cost[np.arange(len(cost)), labels].sum() + weights[disagree].sum())


def contrast_weights(values: np.ndarray, edges: np.ndarray, strength: float) -> np.ndarray:
    """strength · exp(-|Δv|² / 2s²) of each edge, s² being the mean of |Δv|² over all edges. values: N×D."""
    squared = np.square(values[edges[:, 0]] - values[edges[:, 1]]).sum(1)
    return strength * np.exp(-squared / (2 * max(squared.mean() if len(squared) else 0.0, 1e-12)))


def agreement(labels: np.ndarray, num_labels: int, edges: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """N×C: the summed weight of the neighbours that have each label."""
    found = np.zeros((len(labels), num_labels))
    for here, there in (edges.T, edges.T[::-1]):
        np.add.at(found, (here, labels[there]), weights)
    return found


def iterated_conditional_modes(cost: np.ndarray, edges: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """N labels in a local minimum of the energy: starting from the label of the least cost, each node in turn
    takes the best label given its neighbours (Besag 1986)."""
    labels = cost.argmin(1)
    total = cost - agreement(labels, cost.shape[1], edges, weights)
    order, starts, ends = _adjacent(len(cost), edges)
    both = np.concatenate([weights, weights])[order]
    there = np.concatenate([edges[:, 1], edges[:, 0]])[order]
    for _ in range(SWEEPS):
        changed = False
        for node in np.flatnonzero(total.min(1) < total[np.arange(len(cost)), labels]):
            best = int(total[node].argmin())
            if total[node, best] < total[node, labels[node]]:
                near = slice(starts[node], ends[node])
                total[there[near], labels[node]] += both[near]
                total[there[near], best] -= both[near]
                labels[node] = best
                changed = True
        if not changed:
            break
    return labels


def _adjacent(num_nodes: int, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all edges, taken once in each direction: their order by first node, and where the edges of each node
    start and end in that order."""
    first = np.concatenate([edges[:, 0], edges[:, 1]])
    ends = np.cumsum(np.bincount(first, minlength=num_nodes))
    return np.argsort(first, kind="stable"), np.concatenate([[0], ends[:-1]]), ends


def alpha_expansion(cost: np.ndarray, edges: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """N labels whose energy no expansion of one label lowers: at most twice the least energy, and the optimum
    for two labels.

    Boykov, Veksler & Zabih 2001; each expansion is one minimum cut (PyMaxflow).
    """
    labels = cost.argmin(1)
    best = energy(cost, edges, weights, labels)
    for _ in range(SWEEPS):
        before = best
        for label in range(cost.shape[1]):
            moved = _expanded(cost, edges, weights, labels, label)
            now = energy(cost, edges, weights, moved)
            if now < best - 1e-9:
                labels, best = moved, now
        if best >= before - 1e-9:
            break
    return labels


def _expanded(
    cost: np.ndarray, edges: np.ndarray, weights: np.ndarray, labels: np.ndarray, label: int
) -> np.ndarray:
    """The best labelling in which every node keeps its label or takes `label`.

    With x = 1 for taking it, the edge ij costs a = w [y_i ≠ y_j] for x_i x_j = 00, b = w [y_i ≠ label] for
    01, c = w [y_j ≠ label] for 10 and 0 for 11: a + (c - a) x_i - c x_j + (b + c - a) (1 - x_i) x_j
    (Kolmogorov & Zabih 2004).
    """
    import maxflow

    i, j = edges.T
    a, b, c = (
        weights * (one != other)
        for one, other in ((labels[i], labels[j]), (labels[i], label), (labels[j], label))
    )
    take = cost[:, label] - cost[np.arange(len(cost)), labels]
    np.add.at(take, i, c - a)
    np.add.at(take, j, -c)
    graph = maxflow.Graph[float](len(cost), len(edges))
    nodes = graph.add_nodes(len(cost))
    # x = 0 is the source's side: of a node with x = 1 the edge from the source is cut, otherwise the edge to
    # the sink.
    for node, gain in zip(nodes.tolist(), take.tolist(), strict=True):
        graph.add_tedge(node, max(gain, 0.0), max(-gain, 0.0))
    for one, other, capacity in zip(i.tolist(), j.tolist(), (b + c - a).tolist(), strict=True):
        graph.add_edge(one, other, max(capacity, 0.0), 0.0)
    graph.maxflow()
    return np.where(graph.get_grid_segments(nodes), label, labels)
