"""Images of which only the tiles that are asked for are read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segtrain.sample import Window


class RasterTiles:
    """Stands for a tensor of 1×K×H×W pixels where `tiles` cuts tiles from it: an index reads its part."""

    def __init__(
        self,
        read: Callable[[Window], np.ndarray],
        shape: tuple[int, int, int],
        device: torch.device | None = None,
    ):
        """read: window -> its pixels, h×w×K. shape: (K, H, W)."""
        self._read, self.shape, self.device = read, torch.Size((1, *shape)), device or torch.device("cpu")

    def on(self, device: torch.device) -> RasterTiles:
        """The same images, whose parts are read onto a device."""
        return RasterTiles(self._read, tuple(self.shape[1:]), device)

    def __getitem__(self, place: tuple) -> Tensor:
        """1×K×h×w. place: (…, rows, columns), both slices, or both tensors of indices (h×1 and w)."""
        _, rows, columns = place
        if isinstance(rows, Tensor):
            top, left = int(rows.min()), int(columns.min())
            part = self[..., top : int(rows.max()) + 1, left : int(columns.max()) + 1]
            return part[..., rows - top, columns - left]
        (top, bottom, _), (left, right, _) = rows.indices(self.shape[2]), columns.indices(self.shape[3])
        pixels = self._read(Window(top, left, bottom - top, right - left))  # h×w×K
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]).to(self.device)
