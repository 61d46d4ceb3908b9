"""Texture: a filter bank, textons (clusters of filter responses) and local binary patterns."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

FILTERS = 17
PATTERNS = 10
BAND = 1 << 16
"""Pixels whose texton is computed at a time."""


def filter_bank(lab: np.ndarray) -> np.ndarray:
    """H×W×17 float32 responses of TextonBoost's filter bank (Shotton et al. 2009, sec. 3.1) on an H×W×3 Lab
    image.

    Gaussians of sigma 1, 2, 4 on L, a and b; Laplacians of Gaussians of 1, 2, 4, 8 on L; derivatives along x
    and y of 2 and 4 on L.
    """
    from scipy.ndimage import gaussian_filter, gaussian_laplace

    lightness = lab[..., 0]
    answers = [
        gaussian_filter(lab[..., channel], sigma, mode="nearest")
        for sigma in (1, 2, 4)
        for channel in range(3)
    ]
    answers += [gaussian_laplace(lightness, sigma, mode="nearest") for sigma in (1, 2, 4, 8)]
    answers += [
        gaussian_filter(lightness, sigma, order=order, mode="nearest")
        for sigma in (2, 4)
        for order in ((0, 1), (1, 0))
    ]
    return np.stack(answers, axis=-1).astype(np.float32)


def local_binary_patterns(rgb: np.ndarray) -> np.ndarray:
    """H×W×3 -> H×W integers 0..9: uniform local binary patterns of the eight neighbours (Ojala et al. 2002):
    the number of brighter ones, 9 for all patterns that are not uniform."""
    from skimage.feature import local_binary_pattern

    grey = (255 * (rgb @ np.array([0.299, 0.587, 0.114], rgb.dtype))).round().astype(np.uint8)
    return local_binary_pattern(grey, 8, 1, method="uniform").astype(np.int64)


class Textons(nn.Module):
    """The number of the k-means centre, out of `num_words`, that is nearest to the filter responses of each
    pixel, with every filter scaled to variance 1."""

    def __init__(self, num_words: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(FILTERS))
        self.register_buffer("deviation", torch.ones(FILTERS))
        self.register_buffer("centres", torch.zeros(num_words, FILTERS))

    def fit(self, answers: np.ndarray, seed: int) -> None:
        """answers: N×17 of pixels from all over the training split."""
        from sklearn.cluster import MiniBatchKMeans

        mean, deviation = answers.mean(0), np.maximum(answers.std(0), 1e-6)
        clusters = min(len(self.centres), len(answers))
        found = MiniBatchKMeans(clusters, batch_size=4096, n_init=3, random_state=seed).fit(
            (answers - mean) / deviation
        )
        self.mean.copy_(torch.from_numpy(mean))
        self.deviation.copy_(torch.from_numpy(deviation))
        # With fewer pixels than words, the last words stay unused: no pixel is as far away.
        self.centres.fill_(1e6)[:clusters].copy_(torch.from_numpy(found.cluster_centers_))

    def forward(self, answers: np.ndarray) -> np.ndarray:
        """H×W int64 from H×W×17 float32."""
        mean, deviation, centres = (
            buffer.cpu().numpy() for buffer in (self.mean, self.deviation, self.centres)
        )
        flat = ((answers - mean) / deviation).reshape(-1, FILTERS)
        half_norm = 0.5 * np.square(centres).sum(1)
        words = [(flat[i : i + BAND] @ centres.T - half_norm).argmax(1) for i in range(0, len(flat), BAND)]
        return np.concatenate(words).reshape(answers.shape[:2])
