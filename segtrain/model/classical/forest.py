"""A random forest whose trees are tensors: fitted by scikit-learn, saved and run without it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from segtrain.errors import CheckpointError

NODES = ("left", "right", "feature", "threshold")
ROWS = 1024
"""Samples that go through all trees at a time."""


class Forest(nn.Module):
    """The nodes of all trees, one tree after the other, in buffers whose length is known only after the fit.

    roots: the first node of each tree. left, right: the children of each node; -1 at a leaf. At a node, a
    sample goes left if its feature number `feature` is at most `threshold`. values: C×leaves, the share of
    each class at each leaf, in the order of the nodes.
    """

    def __init__(self, num_classes: int, num_features: int):
        super().__init__()
        self.num_features = num_features
        self.register_buffer("roots", torch.zeros(0, dtype=torch.int32))
        for name in ("left", "right", "feature"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(0))
        self.register_buffer("values", torch.zeros(num_classes, 0))

    @property
    def fitted(self) -> bool:
        return len(self.roots) > 0

    def fit(
        self, features: np.ndarray, labels: np.ndarray, trees: int, min_leaf: int, jobs: int, seed: int
    ) -> None:
        """features: N×F float32. labels: N integers 0..C-1; classes that do not occur get probability 0."""
        from sklearn.ensemble import RandomForestClassifier

        fitted = RandomForestClassifier(
            trees,
            min_samples_leaf=min_leaf,
            max_features="sqrt",
            class_weight="balanced_subsample",
            n_jobs=jobs,
            random_state=seed,
        ).fit(features, labels)
        self.take(fitted)

    def take(self, fitted) -> None:
        """Copies scikit-learn's fitted RandomForestClassifier."""
        trees = [one.tree_ for one in fitted.estimators_]
        offsets = np.cumsum([0, *(tree.node_count for tree in trees)])
        leaf = np.concatenate([tree.children_left for tree in trees]) < 0
        values = np.concatenate([tree.value[:, 0] for tree in trees])[leaf]
        shares = np.zeros((self.values.shape[0], len(values)))
        shares[fitted.classes_] = (values / values.sum(1, keepdims=True)).T
        self._set("roots", offsets[:-1])
        for name, children in (("left", "children_left"), ("right", "children_right")):
            moved = [getattr(tree, children) + offset for tree, offset in zip(trees, offsets, strict=False)]
            self._set(name, np.where(leaf, -1, np.concatenate(moved)))
        self._set("feature", np.where(leaf, 0, np.concatenate([tree.feature for tree in trees])))
        self._set(
            "threshold",
            _rounded_down(np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees]))),
        )
        self._set("values", shares)

    def _set(self, name: str, values: np.ndarray) -> None:
        old = getattr(self, name)
        setattr(self, name, torch.from_numpy(np.ascontiguousarray(values)).to(old))

    def resize_for(self, weights: dict[str, torch.Tensor], prefix: str) -> None:
        """Resizes the buffers to the trees in `weights`; CheckpointError if these are no valid trees."""
        found = {
            name: weights[prefix + name] for name in ("roots", *NODES, "values") if prefix + name in weights
        }
        _check_trees(found, self.values.shape[0], self.num_features, prefix)
        for name, tensor in found.items():
            setattr(self, name, getattr(self, name).new_empty(tensor.shape))

    def forward(self, features: np.ndarray) -> np.ndarray:
        """N×C float64 probabilities of N×F float32 samples: the mean over the trees, as scikit-learn's
        predict_proba."""
        roots, left, right, feature, threshold, values = (
            getattr(self, n).cpu().numpy() for n in ("roots", *NODES, "values")
        )
        leaf_number = np.cumsum(left < 0) - 1
        found = []
        for first in range(0, len(features), ROWS):
            part = features[first : first + ROWS]
            sample, node = np.repeat(np.arange(len(part)), len(roots)), np.tile(roots, len(part))
            walking = np.flatnonzero(left[node] >= 0)
            while len(walking):
                at = node[walking]
                node[walking] = np.where(
                    part[sample[walking], feature[at]] <= threshold[at], left[at], right[at]
                )
                walking = walking[left[node[walking]] >= 0]
            found.append(
                values[:, leaf_number[node]]
                .reshape(len(values), len(part), len(roots))
                .mean(2, dtype=np.float64)
                .T
            )
        return np.concatenate(found)


def _rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """The largest float32 up to each threshold: x <= threshold then holds for the same float32 x."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _check_trees(found: dict[str, torch.Tensor], num_classes: int, num_features: int, prefix: str) -> None:
    """CheckpointError unless children exist and come after their parents (so that no sample loops), and all
    features, leaves and roots exist."""
    if (
        len(found) < 6
        or any(found[name].ndim != 1 for name in ("roots", *NODES))
        or found["values"].ndim != 2
    ):
        raise CheckpointError(
            f"the checkpoint holds no forest ({prefix}roots and so on); use the model options of the run"
        )
    roots, left, right, feature = (found[name].long() for name in ("roots", "left", "right", "feature"))
    nodes = torch.arange(len(left))
    inner = left >= 0
    sound = (
        len({len(found[name]) for name in NODES}) == 1
        and found["values"].shape == (num_classes, int((~inner).sum()))
        and bool(((roots >= 0) & (roots < len(left))).all())
        and bool(((feature >= 0) & (feature < num_features)).all())
        and all(bool(((child > nodes) & (child < len(left)))[inner].all()) for child in (left, right))
    )
    if not sound:
        raise CheckpointError(
            f"the forest in the checkpoint ({prefix}*) does not fit the network; use the model options of "
            f"the run"
        )
