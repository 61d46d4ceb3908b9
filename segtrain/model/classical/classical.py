"""Segmentation before neural networks: regions, hand-crafted features, a random forest and a Potts model.

Similar to TextonBoost (Shotton et al. 2009): a classifier labels regions by textons and colour, and a Potts
model prefers equal labels for neighbouring regions of similar colour.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch

from segtrain.errors import ConfigError, DataError
from segtrain.model.classical.forest import Forest
from segtrain.model.classical.potts import (
    agreement,
    alpha_expansion,
    contrast_weights,
    iterated_conditional_modes,
)
from segtrain.model.classical.regions import around, histograms, neighbours, regions_of, sums
from segtrain.model.classical.texture import PATTERNS, Textons, filter_bank, local_binary_patterns
from segtrain.model.network import Network
from segtrain.options import between, key, with_options
from segtrain.sample import Normalisation, Output

PURE = 0.6
"""Smallest share of a training region's labelled pixels that have the most frequent class; other regions are
not used in training."""
LABELLED = 0.5
"""Smallest share of a training region's pixels that have a label; other regions are not used in training."""
TEXTON_PIXELS = 200_000
"""Pixels of the training split that the textons are clustered from."""
LEAST = 1e-12
"""Smallest probability, so that its logarithm is finite."""


@dataclass(frozen=True)
class Options:
    """Options of classical segmentation."""

    regions: Literal["slic", "watershed"] = key(
        "slic", "slic: k-means in colour and position; watershed: of the map of colour gradients"
    )
    num_regions: Annotated[int, between(1, 100_000)] = key(
        400, "approximate number of regions (superpixels) of an image"
    )
    compactness: Annotated[float, between(1e-6, 1e6)] = key(
        10.0, "compactness of slic's regions: more makes them rounder, less lets them follow the colours"
    )
    textons: Annotated[int, between(1, 4096)] = key(
        64, "size of the texton vocabulary, which describes texture"
    )
    trees: Annotated[int, between(1, 10_000)] = key(200, "trees of the random forest")
    min_leaf: Annotated[int, between(1, 1_000_000)] = key(5, "fewest training regions at a leaf")
    max_regions: Annotated[int, between(1, 100_000_000)] = key(
        100_000,
        "approximate number of regions that the forest is fitted on; if there are more, the same number is "
        "drawn from each image",
    )
    smoothing: Literal["expansion", "icm", "none"] = key(
        "expansion",
        "Potts model over neighbouring regions, solved by alpha-expansion (needs PyMaxflow) or by iterated "
        "conditional modes, which is weaker and needs nothing; none: the forest's probabilities as they are",
    )
    smoothing_weight: Annotated[float, between(0, 1000)] = key(
        0.5, "cost in nats of different classes in two neighbouring regions of the same colour"
    )


@with_options(Options)
def classical(options: Options, out_channels: int, in_channels: int = 3) -> Network:
    """Classical segmentation: regions, colour and texture features, a random forest and a Potts model.
    Fitted, not trained.

    The training split is read twice, without augmentation: for the textons, and for one feature vector a
    region (Lab mean and deviation, histograms of textons and local binary patterns, position, area, and the
    mean of all these over the neighbouring regions). trainer, loss, optimizer, schedule and augmentation are
    not used. Images of one channel count as grey, of more than three only the first three are used, as RGB.
    Needs segtrain[classical].
    """
    _need("skimage", "scikit-image")
    if options.smoothing == "expansion":
        _need("maxflow", "PyMaxflow", " or use model.smoothing=icm")
    net = Classical(options, out_channels)
    net.normalisation = Normalisation((0.0,) * in_channels, (1.0,) * in_channels)
    net.weights_report = "fitted on the training split"
    return net


def _need(module: str, package: str, otherwise: str = "") -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"model=classical needs {package}, which is not installed; run pip install "
            f"'segtrain[classical]'{otherwise}"
        )


class Classical(Network):
    """B×K×H×W values 0..1 -> Output with B×C×H×W log-probabilities; before the fit all classes are equally
    likely.

    Its scores are log-probabilities, none above 0, so they must not be merged with non-negative ones.
    """

    head_keys = ("forest.values",)
    log_probabilities = True
    fits_itself = True

    def __init__(self, options: Options, num_classes: int):
        super().__init__()
        self.chosen, self.num_classes = options, num_classes
        self.textons = Textons(options.textons)
        self.forest = Forest(num_classes, 2 * (6 + options.textons + PATTERNS + 3))

    # --- fit

    def fit(self, samples: Iterable, rng: np.random.Generator) -> None:
        """Fits textons and forest. samples: the training split's `Sample`s, with a length; read twice. Target
        values from C on count as unlabelled."""
        _need("sklearn", "scikit-learn")
        share = -(-TEXTON_PIXELS // len(samples))
        answers = [_drawn(filter_bank(_lab(self._rgb_of(sample.image))), share, rng) for sample in samples]
        self.textons.fit(np.concatenate(answers), _seed(rng))
        share = -(-self.chosen.max_regions // len(samples))
        taught = [self._taught(sample, share, rng) for sample in samples]
        features, labels = (np.concatenate(part) for part in zip(*taught, strict=True))
        if len(labels) == 0:
            raise DataError(
                "no region of the training images has a clear label; a larger model.num_regions gives "
                "smaller regions"
            )
        self.forest.fit(
            features,
            labels,
            trees=self.chosen.trees,
            min_leaf=self.chosen.min_leaf,
            jobs=torch.get_num_threads(),
            seed=_seed(rng),
        )

    def _taught(self, sample, most: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Features and labels of at most `most` regions of an image that have a clear class."""
        regions, _, _, features = self.described(self._rgb_of(sample.image))
        labels = majority(regions, sample.target, self.num_classes)
        clear = np.flatnonzero(labels >= 0)
        chosen = np.sort(rng.permutation(clear)[:most])
        return features[chosen], labels[chosen]

    def resize_for(self, weights: dict[str, torch.Tensor]) -> None:
        """Resizes the forest to that of `weights`, before `load_state_dict`; CheckpointError if `weights`
        hold no forest."""
        textons = weights.get("textons.centres")
        if (
            textons is not None and textons.shape == self.textons.centres.shape
        ):  # else the features are others, and loading says so
            self.forest.resize_for(weights, "forest.")

    # --- prediction

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> Output:
        size = tuple(x.shape[-2:])
        if not self.forest.fitted:
            return Output(
                x.new_full(
                    (len(x), self.num_classes, *size), -float(np.log(self.num_classes)), dtype=torch.float32
                ),
                size,
            )
        images = x.float().cpu().permute(0, 2, 3, 1).numpy()
        logits = np.stack([self._log_probabilities(_rgb(image)) for image in images])
        return Output(torch.from_numpy(logits).to(x.device), size)

    def _log_probabilities(self, rgb: np.ndarray) -> np.ndarray:
        """H×W×3 -> C×H×W float32. With smoothing, the probabilities of a region are conditional on the labels
        of its neighbours, and its most probable class is its label in the Potts model."""
        regions, colours, edges, features = self.described(rgb)
        scores = np.log(np.maximum(self.forest(features), LEAST))
        if self.chosen.smoothing != "none":
            weights = contrast_weights(colours, edges, self.chosen.smoothing_weight)
            solve = alpha_expansion if self.chosen.smoothing == "expansion" else iterated_conditional_modes
            scores += agreement(solve(-scores, edges, weights), self.num_classes, edges, weights)
            scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
        return scores.T.astype(np.float32)[:, regions]

    def described(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of an H×W×3 image in 0..1: the regions (H×W), their mean colours (R×3 Lab), the pairs of
        neighbouring regions (E×2), and their features (R×F float32)."""
        lab = _lab(rgb)
        chosen = self.chosen
        regions = regions_of(rgb, lab, chosen.regions, chosen.num_regions, chosen.compactness)
        height, width = regions.shape
        area = np.bincount(regions.ravel())[:, None]
        mean = sums(regions, lab) / area
        deviation = np.sqrt(np.maximum(sums(regions, np.square(lab, dtype=np.float64)) / area - mean**2, 0))
        y, x = np.mgrid[:height, :width] + 0.5
        centroid = sums(regions, np.stack([x / width, y / height], -1)) / area
        own = np.hstack(
            [
                mean,
                deviation,
                histograms(regions, self.textons(filter_bank(lab)), len(self.textons.centres)) / area,
                histograms(regions, local_binary_patterns(rgb), PATTERNS) / area,
                centroid,
                np.log(area / (height * width)),
            ]
        )
        edges = neighbours(regions)
        return regions, mean, edges, np.hstack([own, around(own, area[:, 0], edges)]).astype(np.float32)

    def _rgb_of(self, image: np.ndarray) -> np.ndarray:
        """H×W×3 float32 of a sample's image, normalised as the predictor does it."""
        return _rgb(
            self.normalisation(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None])[0]
            .permute(1, 2, 0)
            .numpy()
        )


def majority(regions: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """R class indices: the most frequent class among a region's labelled pixels; -1 where no class is clear
    (PURE, LABELLED).

    regions: H×W of 0..R-1. target: H×W; values outside 0..C-1 count as unlabelled.
    """
    area = np.bincount(regions.ravel())
    known = (target >= 0) & (target < num_classes)
    counts = np.bincount(
        regions[known] * num_classes + target[known], minlength=len(area) * num_classes
    ).reshape(len(area), num_classes)
    labelled, most = counts.sum(1), counts.max(1)
    clear = (labelled > 0) & (labelled >= LABELLED * area) & (most >= PURE * labelled)
    return np.where(clear, counts.argmax(1), -1)


def _rgb(image: np.ndarray) -> np.ndarray:
    """H×W×K -> H×W×3: the first three channels; of fewer, the last one is repeated."""
    return np.ascontiguousarray(image[..., [min(channel, image.shape[2] - 1) for channel in range(3)]])


def _lab(rgb: np.ndarray) -> np.ndarray:
    """H×W×3 float32 CIE Lab of an RGB image in 0..1."""
    from skimage.color import rgb2lab

    return rgb2lab(rgb).astype(np.float32)


def _drawn(answers: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """H×W×17 -> at most count×17: the filter responses of pixels drawn at random."""
    flat = answers.reshape(-1, answers.shape[-1])
    return flat[rng.choice(len(flat), min(count, len(flat)), replace=False)]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
