"""Softmax of upsampled logits, without ever holding the upsampled logits.

Full-size logits and what autograd keeps of them are often the largest tensors of a training step. Here they
are made block by block, reduced at once to what a loss needs, and made again in the backward pass, where only
the gradient of the low-resolution logits is kept. A block is 32 output rows high, and narrow enough to stay in
the cache of a CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS, COLUMNS = 32, 128
"""Output rows and, on a CPU, columns of a block."""
CACHED, ON_DEVICE = 2**18, 2**25
"""About how many numbers (images × classes × pixels) a block holds: on a CPU, and elsewhere, where each block
costs kernel launches."""
LEAST_RATIO, LEAST_SIZE = 2.0, 2**18
"""From how many output pixels per logit, in each direction, and from how many upsampled numbers
(images × classes × pixels) blocks pay."""


class Terms(NamedTuple):
    """What losses need of p = softmax(z), z the upsampled logits. float32; float64 for float64 logits.

    nll: B×H×W, -log p_y for the class y of the pixel; 0 where there is no label.
    spread: N×B×H×W, Σ_c s_c · -log p_c for each of N vectors s; 0 where there is no label.
    sums: N×B×C, Σ p_c^n over the labelled pixels of each image, for each of N powers n.
    """

    nll: Tensor
    spread: Tensor
    sums: Tensor


def pays(logits: Tensor, size: tuple[int, int]) -> bool:
    """Whether `softmax_terms` takes less memory and no more time than upsampling B×C×h×w `logits` to `size`
    (H, W) at once."""
    (height, width), (h, w) = size, logits.shape[-2:]
    numbers = logits.shape[0] * logits.shape[1] * height * width
    return numbers >= LEAST_SIZE and height >= LEAST_RATIO * h and width >= LEAST_RATIO * w


def softmax_terms(
    logits: Tensor,
    size: tuple[int, int],
    align_corners: bool,
    target: Tensor,
    ignore_index: int,
    spread: Tensor | None = None,
    powers: tuple[int, ...] = (),
) -> Terms:
    """The terms of B×C×h×w logits, upsampled bilinearly to `size` (H, W), and a B×H×W integer target.

    spread: N×C. powers: each 1 or 2. The logits get a gradient (once: there is no second derivative). Runs on
    any device and without autocast. A faster kernel can stand in for this function alone.
    """
    if spread is None:
        spread = logits.new_zeros(0, logits.shape[1])
    with torch.autocast(logits.device.type, enabled=False):
        return Terms(*_Terms.apply(logits, tuple(size), align_corners, target, ignore_index, spread, powers))


class _Terms(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, size, align_corners, target, ignore_index, spread, powers):
        blocks = _Blocks(logits, size, align_corners)
        spread = spread.to(blocks.dtype)
        ctx.save_for_backward(logits, target, spread)
        ctx.size, ctx.align_corners, ctx.ignore_index, ctx.powers = size, align_corners, ignore_index, powers
        batch, classes = logits.shape[:2]
        new = functools.partial(torch.zeros, dtype=blocks.dtype, device=logits.device)
        nll, spreads = new(batch, *size), new(len(spread), batch, *size)
        sums = new(len(powers), batch, classes)
        for block in blocks:
            labels, valid = _labels(target[block.pixels], ignore_index, classes)  # b×1×P
            z = block.upsampled()  # b×C×P
            z -= z.amax(1, keepdim=True)
            true = z.gather(1, labels)
            below = torch.matmul(spread, z) if len(spread) else None  # b×N×P
            exp = z.exp_()
            total = exp.sum(1, keepdim=True)
            log_total = total.log()
            shape = nll[block.pixels].shape
            nll[block.pixels] = torch.where(valid, log_total - true, 0).view(shape)
            if below is not None:
                below = torch.where(valid, spread.sum(1)[:, None] * log_total - below, 0)
                spreads[:, *block.pixels] = below.transpose(0, 1).reshape(-1, *shape)
            if powers:
                weight = (valid / total).transpose(1, 2)  # b×P×1
                for number, power in enumerate(powers):
                    # p is exp / total.
                    sums[number, block.pixels[0]] += torch.matmul(
                        exp if power == 1 else exp.square(), weight if power == 1 else weight.square()
                    )[..., 0]
        return nll, spreads, sums

    @staticmethod
    @once_differentiable
    def backward(ctx, nll_grad, spread_grad, sums_grad):
        logits, target, spread = ctx.saved_tensors
        blocks = _Blocks(logits, ctx.size, ctx.align_corners)
        grad = torch.zeros(logits.shape, dtype=blocks.dtype, device=logits.device)
        classes = logits.shape[1]
        for block in blocks:
            labels, valid = _labels(target[block.pixels], ctx.ignore_index, classes)  # b×1×P
            shape = (labels.shape[0], -1, labels.shape[2])
            of_true = nll_grad[block.pixels].reshape(shape) * valid  # b×1×P
            scale = of_true
            z = block.upsampled()  # b×C×P
            z -= z.amax(1, keepdim=True)
            z = z.exp_()
            total = z.sum(1, keepdim=True)
            if len(spread):
                of_spread = spread_grad[:, *block.pixels].reshape(len(spread), *shape[::2])
                of_spread = of_spread.transpose(0, 1) * valid  # b×N×P
                scale = scale + torch.matmul(spread.sum(1), of_spread)[:, None]
            if ctx.powers:
                z *= valid / total
                slope = torch.zeros(1, 1, 1, dtype=z.dtype, device=z.device)
                for power, of_sum in zip(ctx.powers, sums_grad[:, block.pixels[0]], strict=True):
                    slope = slope + of_sum[..., None] * (1 if power == 1 else 2 * z)  # b×C×1 or b×C×P
                mean = (slope * z).sum(1, keepdim=True) if 2 in ctx.powers else slope.mT @ z
                z *= slope + (scale - mean)
            else:
                z *= scale / total
            z.scatter_add_(1, labels, -of_true)
            if len(spread):
                z -= torch.matmul(spread.T, of_spread)
            block.add_transposed(z, grad)
        return grad.to(logits.dtype), None, None, None, None, None, None


def _labels(target: Tensor, ignore_index: int, classes: int) -> tuple[Tensor, Tensor]:
    """Class indices, any class where there is no label, and whether there is one; both b×1×P."""
    target = target.flatten(1)[:, None]
    return target.long().clamp(0, classes - 1), target != ignore_index


class _Span(NamedTuple):
    """A range of outputs of a one-dimensional interpolation, the range of inputs that they depend on, and the
    outputs×inputs matrix between the two."""

    outputs: slice
    inputs: slice
    matrix: Tensor


@functools.lru_cache(maxsize=16)
def _spans(inputs: int, outputs: int, step: int, align_corners: bool, dtype, device) -> tuple[_Span, ...]:
    """The spans of `step` outputs each that make up the interpolation."""
    unit = torch.eye(inputs, dtype=dtype)[None]
    # The weights are torch's own, rounding included.
    weights = F.interpolate(unit, size=outputs, mode="linear", align_corners=align_corners)[0].T  # outputs×inputs
    spans = []
    for start in range(0, outputs, step):
        rows = weights[start : start + step]
        used = rows.any(0).nonzero()
        columns = slice(int(used[0]), int(used[-1]) + 1)
        matrix = rows[:, columns].contiguous().to(device)
        spans.append(_Span(slice(start, start + len(rows)), columns, matrix))
    return tuple(spans)


class _Block(NamedTuple):
    """pixels: the indices of its images, rows and columns in a B×H×W tensor. low: the logits that it depends
    on, b×C×k×l."""

    pixels: tuple[slice, slice, slice]
    low: Tensor
    rows: _Span
    columns: _Span

    def upsampled(self) -> Tensor:
        """b×C×P logits of the P pixels, row by row."""
        batch, classes, k, l = self.low.shape
        wide = self.low.reshape(-1, l) @ self.columns.matrix.T  # bCk×W'
        up = self.rows.matrix.expand(batch * classes, -1, -1)  # bC×H'×k
        return torch.bmm(up, wide.view(batch * classes, k, -1)).view(batch, classes, -1)

    def add_transposed(self, z: Tensor, grad: Tensor) -> None:
        """Adds the gradient of the logits to B×C×h×w `grad`; z: b×C×P, that of the upsampled logits."""
        batch, classes, k, l = self.low.shape
        down = self.rows.matrix.T.expand(batch * classes, -1, -1)  # bC×k×H'
        wide = torch.bmm(down, z.view(batch * classes, len(self.rows.matrix), -1))  # bC×k×W'
        narrow = wide.view(batch * classes * k, -1) @ self.columns.matrix  # bCk×l
        part = grad[self.pixels[0], :, self.rows.inputs, self.columns.inputs]
        part += narrow.view(batch, classes, k, l)


class _Blocks:
    """Iterates over the blocks that cover the upsampled logits. dtype: that of the computation."""

    def __init__(self, logits: Tensor, size: tuple[int, int], align_corners: bool):
        self.logits = logits.detach()
        self.dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        batch, classes, h, w = logits.shape
        on_cpu = logits.device.type == "cpu"
        wide = min(COLUMNS, size[1]) if on_cpu else size[1]
        self.images = max(1, (CACHED if on_cpu else ON_DEVICE) // (classes * min(ROWS, size[0]) * wide))
        common = (align_corners, self.dtype, logits.device)
        self.rows = _spans(h, size[0], ROWS, *common)
        self.columns = _spans(w, size[1], wide, *common)

    def __iter__(self) -> Iterator[_Block]:
        for first in range(0, len(self.logits), self.images):
            images = slice(first, first + self.images)
            for rows in self.rows:
                band = self.logits[images, :, rows.inputs].to(self.dtype)
                for columns in self.columns:
                    pixels = (images, rows.outputs, columns.outputs)
                    yield _Block(pixels, band[..., columns.inputs], rows, columns)
