"""Regions of similar colour (superpixels), and which of them are neighbours."""

from __future__ import annotations

import numpy as np


def regions_of(
    rgb: np.ndarray, lab: np.ndarray, how: str, num_regions: int, compactness: float
) -> np.ndarray:
    """H×W int64 numbers 0..R-1 of the regions of an image; R is about `num_regions`.

    how: "slic" (Achanta et al. 2012: k-means in colour and place; compactness is the weight of the place) or
    "watershed" of the boundary map (Meyer 1994), whose regions end where the colour changes most. rgb: H×W×3
    float32 in 0..1, lab: the same in CIE Lab.
    """
    from skimage.segmentation import slic, watershed

    if how == "slic":
        found = slic(
            rgb, n_segments=num_regions, compactness=compactness, sigma=1, start_label=0, channel_axis=-1
        )
    else:
        found = watershed(boundary_map(lab), markers=num_regions)
    return np.unique(found, return_inverse=True)[1].reshape(found.shape)


def boundary_map(lab: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    """H×W×3 -> H×W: the magnitude of the Lab gradient over all three channels, after a Gaussian of `sigma`
    pixels."""
    from scipy.ndimage import gaussian_gradient_magnitude

    channels = [gaussian_gradient_magnitude(lab[..., channel], sigma, mode="nearest") for channel in range(3)]
    return np.sqrt(np.square(channels).sum(0))


def neighbours(regions: np.ndarray) -> np.ndarray:
    """E×2: the pairs of regions that share a side of a pixel, the smaller number first, each pair once."""
    pairs = [
        np.stack([a.ravel(), b.ravel()], 1)
        for a, b in ((regions[1:], regions[:-1]), (regions[:, 1:], regions[:, :-1]))
    ]
    both = np.sort(np.concatenate(pairs), axis=1)
    both = both[both[:, 0] != both[:, 1]]
    count = int(regions.max()) + 1
    codes = np.unique(both[:, 0] * count + both[:, 1])
    return np.stack([codes // count, codes % count], axis=1)


def sums(regions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """R×D float64: the sum of H×W×D values over each region."""
    flat, count = regions.ravel(), int(regions.max()) + 1
    return np.stack([np.bincount(flat, one.ravel(), count) for one in np.moveaxis(values, -1, 0)], axis=1)


def histograms(regions: np.ndarray, words: np.ndarray, num_words: int) -> np.ndarray:
    """R×num_words float64: how often each of the H×W integers occurs in each region."""
    count = int(regions.max()) + 1
    return (
        np.bincount((regions * num_words + words).ravel(), minlength=count * num_words)
        .reshape(count, num_words)
        .astype(np.float64)
    )


def around(values: np.ndarray, area: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """R×D -> R×D: the mean of `values` over the neighbouring regions, weighted by their area; a region
    without neighbours gets its own value."""
    total, weight = np.zeros_like(values), np.zeros(len(values))
    for here, there in (edges.T, edges.T[::-1]):
        np.add.at(total, here, values[there] * area[there, None])
        np.add.at(weight, here, area[there])
    return np.where(weight[:, None] > 0, total / np.maximum(weight, 1e-12)[:, None], values)
