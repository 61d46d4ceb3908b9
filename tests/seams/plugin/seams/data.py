"""Images with measured targets in place of classes."""

import numpy as np

from segtrain.data.parts import Data
from segtrain.sample import Facts, Sample


class Ramps:
    """Smooth random images of `size` pixels. kind depth: H×W, the mean of the channels in 0..1, NaN in a corner;
    image: H×W×3 float32 in 0..1, what the noisy image was before."""

    def __init__(self, first: int, count: int, size: int, kind: str):
        self.first, self.count, self.size_px, self.kind = first, count, size, kind

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(self.first + index)
        grid = np.linspace(0, 1, self.size_px, dtype=np.float32)
        slopes = rng.uniform(0, 0.5, (2, 3)).astype(np.float32)
        clean = grid[:, None, None] * slopes[0] + grid[None, :, None] * slopes[1]  # H×W×3
        noisy = (clean + rng.normal(0, 0.1, clean.shape)).clip(0, 1)
        image = (255 * (clean if self.kind == "depth" else noisy)).round().astype(np.uint8)
        target = clean
        if self.kind == "depth":
            target = clean.mean(2)
            target[:4, :4] = np.nan
        return Sample(image, target, name=self.name(index))

    def name(self, index: int) -> str:
        return f"ramp-{self.first + index}"

    def size(self, index: int) -> tuple[int, int]:
        return self.size_px, self.size_px


def ramps(kind: str = "depth", size: int = 32) -> Data:
    """Smooth random images.

    Options:
        kind: depth, or image
        size: side of the images in pixels
    """
    splits = {"train": Ramps(0, 16, size, kind), "val": Ramps(100, 5, size, kind)}
    return Data(Facts(classes=(), palette=()), splits)
