"""Softmax of upsampled logits, without ever holding the upsampled logits.

Full-size logits and what autograd keeps of them are often the largest tensors of a training step. Here they
are made block by block, reduced at once to what a loss needs, and made again in the backward pass, where only
the gradient of the low-resolution logits is kept. A block is small enough for the cache of a CPU.
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
LEAST_CLASSES, LEAST_RATIO, LEAST_SIZE = 8, 128, 2**20
"""From how many classes, classes × output pixels per logit, and upsampled numbers (images × classes × pixels)
blocks pay on a CPU. With fewer, what is done once a pixel takes longer than what is saved for each class."""


class Terms(NamedTuple):
    """What losses need of p = softmax(z), z the upsampled logits. float32; float64 for float64 logits.

    nll: B×H×W, -log p_y for the class y of the pixel; 0 where there is no label.
    spread: N×B×H×W, Σ_c s_c · -log p_c for each of N vectors s, the second term of label smoothing; 0 where
    there is no label.
    sums: power n -> C, Σ p_c^n over the labelled pixels.
    """

    nll: Tensor
    spread: Tensor
    sums: dict[int, Tensor]


def pays(logits: Tensor, size: tuple[int, int]) -> bool:
    """Whether B×C×h×w `logits` take less memory and no more time here than when upsampled to `size` (H, W) at
    once. Never inside torch.compile, which would unroll the blocks."""
    images, classes, h, w = logits.shape
    pixels = size[0] * size[1]
    large = images * classes * pixels >= LEAST_SIZE and classes * pixels >= LEAST_RATIO * h * w
    upsampled = size[0] > h and size[1] > w
    return upsampled and large and classes >= LEAST_CLASSES and not torch.compiler.is_compiling()


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

    spread: N×C. powers: each 1 or 2. The logits get a first derivative only. Runs on any device, in full
    precision also under autocast. A kernel for another device replaces this function and `softmax_total`.
    """
    problem = _Problem.of(logits, size, align_corners, target, ignore_index, spread)
    nll, spreads, sums = _Terms.apply(logits, problem, powers)
    # The images last: one float32 sum over all pixels would be inexact.
    return Terms(nll, spreads, dict(zip(powers, sums.sum(1), strict=True)))


def softmax_total(
    logits: Tensor,
    size: tuple[int, int],
    align_corners: bool,
    target: Tensor,
    ignore_index: int,
    nll_weights: Tensor,
    spread: Tensor | None = None,
    spread_weights: Tensor | None = None,
) -> Tensor:
    """Σ nll_weights · nll + Σ spread_weights · spread over the labelled pixels, a scalar, with nll and spread
    as in `Terms`: the same in one pass instead of two, because the weights are known beforehand.

    nll_weights: B×H×W. spread_weights: N×B×H×W. Only the logits get a gradient.
    """
    problem = _Problem.of(logits, size, align_corners, target, ignore_index, spread)
    with_grad = torch.is_grad_enabled() and logits.requires_grad
    return _Total.apply(logits, problem, nll_weights, spread_weights, with_grad)


class _Problem(NamedTuple):
    """size: (H, W). target: B×H×W. spread: N×C in the dtype of the computation."""

    size: tuple[int, int]
    align_corners: bool
    target: Tensor
    ignore_index: int
    spread: Tensor

    @staticmethod
    def of(logits, size, align_corners, target, ignore_index, spread) -> _Problem:
        if spread is None:
            spread = logits.new_zeros(0, logits.shape[1])
        spread = spread.detach().to(_dtype(logits))
        return _Problem(tuple(size), align_corners, target, ignore_index, spread)

    def blocks(self, logits: Tensor, spare: bool = False) -> Iterator[_Block]:
        return _blocks(logits, self.size, self.align_corners, spare)

    def labels(self, block: _Block, classes: int) -> tuple[Tensor, Tensor]:
        """Class indices, of any class where there is no label, and whether there is one; both b×1×P."""
        target = self.target[block.pixels].flatten(1)[:, None]
        return target.clamp(0, classes - 1).long(), target != self.ignore_index

    def losses(
        self, z: Tensor, labels: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """(exp z in place of z, its sum b×1×P, nll b×1×P, spread b×N×P or None) of b×C×P logits."""
        true = z.gather(1, labels)
        below = self.spread @ z if len(self.spread) else None
        exp = z.exp_()
        total = exp.sum(1, keepdim=True)
        log_total = total.log()
        if below is not None:
            below = torch.where(valid, self.spread.sum(1)[:, None] * log_total - below, 0)
        return exp, total, torch.where(valid, log_total - true, 0), below

    def slopes(self, p: Tensor, labels: Tensor, of_nll: Tensor, of_spread: Tensor | None) -> None:
        """Subtracts the share of the right class and of the spread from b×C×P `p`: the gradient of the logits
        if p holds probabilities times Σ of_nll + Σ of_spread · Σ s. of_nll: b×1×P, of_spread: b×N×P."""
        p.scatter_add_(1, labels, -of_nll)
        if of_spread is not None:
            p -= self.spread.T @ of_spread

    def scale(self, of_nll: Tensor, of_spread: Tensor | None) -> Tensor:
        """b×1×P: Σ of_nll + Σ of_spread · Σ s."""
        return of_nll if of_spread is None else of_nll + (self.spread.sum(1) @ of_spread)[:, None]


class _Terms(torch.autograd.Function):
    """(logits, problem, powers) -> nll B×H×W, spread N×B×H×W, sums (one a power)×B×C."""

    @staticmethod
    def forward(ctx, logits, problem, powers):
        ctx.save_for_backward(logits)
        ctx.problem, ctx.powers = problem, powers
        (batch, classes), size, count = logits.shape[:2], problem.size, len(problem.spread)
        zeros = functools.partial(torch.zeros, dtype=_dtype(logits), device=logits.device)
        nll, spreads = zeros(batch, *size), zeros(count, batch, *size)
        sums = zeros(len(powers), batch, classes)
        with _full_precision(logits):
            for block in problem.blocks(logits, spare=2 in powers):
                labels, valid = problem.labels(block, classes)
                exp, total, nlls, below = problem.losses(block.logits(), labels, valid)
                nll[block.pixels] = nlls.view(block.shape)
                if below is not None:
                    spreads[:, *block.pixels] = below.transpose(0, 1).reshape(count, *block.shape)
                for number, power in enumerate(powers):
                    p, weight = exp, valid / total
                    if power == 2:
                        p, weight = torch.square(exp, out=block.spare(exp)), weight / total
                    sums[number, block.pixels[0]] += (p @ weight.mT)[..., 0]
        return nll, spreads, sums

    @staticmethod
    @once_differentiable
    def backward(ctx, nll_grad, spread_grad, sums_grad):
        (logits,), problem, powers = ctx.saved_tensors, ctx.problem, ctx.powers
        grad = torch.zeros(logits.shape, dtype=_dtype(logits), device=logits.device)
        with _full_precision(logits):
            for block in problem.blocks(logits, spare=bool(powers)):
                labels, valid = problem.labels(block, logits.shape[1])
                of_nll, of_spread = block.weights(nll_grad, spread_grad, valid)
                scale = problem.scale(of_nll, of_spread)
                p = block.logits().exp_()
                total = p.sum(1, keepdim=True)
                if powers:
                    p *= valid / total
                    p *= torch.add(
                        *_slopes(p, powers, sums_grad[:, block.pixels[0]], scale), out=block.spare(p)
                    )
                else:
                    p *= scale / total
                problem.slopes(p, labels, of_nll, of_spread)
                block.add_transposed(p, grad)
        return grad.to(logits.dtype), None, None


def _slopes(p: Tensor, powers: tuple[int, ...], of_sums: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Two factors of b×C×P probabilities whose sum, times p, is the gradient of the logits but for the share
    of the right class: b×C×1 or b×C×P, and b×1×P. of_sums: (one a power)×b×C, gradients of Σ p^n."""
    slope = 0
    for power, of_sum in zip(powers, of_sums, strict=True):
        slope = slope + of_sum[..., None] if power == 1 else (2 * of_sum[..., None]) * p + slope
    mean = slope.mT @ p if slope.shape[-1] == 1 else (slope * p).sum(1, keepdim=True)
    return slope, scale - mean


class _Total(torch.autograd.Function):
    """(logits, problem, nll weights, spread weights, with_grad) -> the scalar of `softmax_total`. The forward
    pass makes the gradient."""

    @staticmethod
    def forward(ctx, logits, problem, nll_weights, spread_weights, with_grad):
        new = {"dtype": _dtype(logits), "device": logits.device}
        grad = torch.zeros(logits.shape, **new) if with_grad else None
        totals = []
        with _full_precision(logits):
            for block in problem.blocks(logits):
                labels, valid = problem.labels(block, logits.shape[1])
                of_nll, of_spread = block.weights(nll_weights, spread_weights, valid)
                p, total, nll, below = problem.losses(block.logits(), labels, valid)
                totals.append(
                    (of_nll * nll).sum()
                    if below is None
                    else (of_nll * nll).sum() + (of_spread * below).sum()
                )
                if with_grad:
                    p *= problem.scale(of_nll, of_spread) / total
                    problem.slopes(p, labels, of_nll, of_spread)
                    block.add_transposed(p, grad)
        if with_grad:
            ctx.save_for_backward(grad)
        ctx.logits_dtype = logits.dtype
        return torch.stack(totals).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, factor):
        (grad,) = ctx.saved_tensors
        return (grad * factor).to(ctx.logits_dtype), None, None, None, None


def _dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _full_precision(logits: Tensor) -> torch.autocast:
    return torch.autocast(logits.device.type, enabled=False)


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
    weights = F.interpolate(unit, size=outputs, mode="linear", align_corners=align_corners)[0].T
    spans = []
    for start in range(0, outputs, step):
        rows = weights[start : start + step]
        used = rows.any(0).nonzero()
        columns = slice(int(used[0]), int(used[-1]) + 1)
        matrix = rows[:, columns].contiguous().to(device)
        spans.append(_Span(slice(start, start + len(rows)), columns, matrix))
    return tuple(spans)


class _Block(NamedTuple):
    """pixels: the indices of its images, rows and columns in a B×H×W tensor; shape: their numbers. low: the
    logits that it depends on, b×C×k×l. memory: one or two rows, used by each block in turn: allocating it for
    every block would fragment the heap."""

    pixels: tuple[slice, slice, slice]
    low: Tensor
    rows: _Span
    columns: _Span
    memory: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.low), len(self.rows.matrix), len(self.columns.matrix)

    def logits(self) -> Tensor:
        """b×C×P upsampled logits of the P pixels, row by row, less the largest of each pixel."""
        batch, classes, k, _ = self.low.shape
        wide = self.low.reshape(-1, self.low.shape[3]) @ self.columns.matrix.T  # bCk×W'
        up = self.rows.matrix.expand(batch * classes, -1, -1)  # bC×H'×k
        _, height, width = self.shape
        z = self.memory[0, : batch * classes * height * width].view(batch * classes, height, width)
        torch.bmm(up, wide.view(batch * classes, k, -1), out=z)
        z = z.view(batch, classes, -1)
        return z.sub_(z.amax(1, keepdim=True))

    def spare(self, z: Tensor) -> Tensor:
        """Memory of the shape of the logits z."""
        return self.memory[1, : z.numel()].view(z.shape)

    def add_transposed(self, z: Tensor, grad: Tensor) -> None:
        """Adds the gradient of the logits to B×C×h×w `grad`; z: b×C×P, that of the upsampled logits."""
        batch, classes, k, width = self.low.shape
        down = self.rows.matrix.T.expand(batch * classes, -1, -1)  # bC×k×H'
        wide = torch.bmm(down, z.view(batch * classes, len(self.rows.matrix), -1))  # bC×k×W'
        narrow = wide.view(batch * classes * k, -1) @ self.columns.matrix  # bCk×l
        part = grad[self.pixels[0], :, self.rows.inputs, self.columns.inputs]
        part += narrow.view(batch, classes, k, width)

    def weights(self, nll: Tensor, spread: Tensor | None, valid: Tensor) -> tuple[Tensor, Tensor | None]:
        """The part of B×H×W nll and N×B×H×W spread weights in this block, b×1×P and b×N×P, 0 where there is
        no label; None without spread."""
        images, _, pixels = valid.shape
        counted = valid.to(self.low.dtype)
        of_nll = nll[self.pixels].reshape(images, 1, pixels) * counted
        if spread is None or not len(spread):
            return of_nll, None
        return of_nll, spread[:, *self.pixels].reshape(-1, images, pixels).transpose(0, 1) * counted


def _blocks(logits: Tensor, size: tuple[int, int], align_corners: bool, spare: bool) -> Iterator[_Block]:
    """The blocks that cover B×C×h×w logits, upsampled to `size`, each valid until the next one. spare: with
    `_Block.spare`."""
    logits, dtype = logits.detach(), _dtype(logits)
    batch, classes, h, w = logits.shape
    on_cpu = logits.device.type == "cpu"
    wide = min(COLUMNS, size[1]) if on_cpu else size[1]
    together = max(1, (CACHED if on_cpu else ON_DEVICE) // (classes * min(ROWS, size[0]) * wide))
    common = (align_corners, dtype, logits.device)
    largest = min(together, batch) * classes * min(ROWS, size[0]) * wide
    memory = torch.empty(1 + spare, largest, dtype=dtype, device=logits.device)
    for first in range(0, batch, together):
        images = slice(first, min(first + together, batch))
        for rows in _spans(h, size[0], ROWS, *common):
            band = logits[images, :, rows.inputs].to(dtype)  # b×C×k×w
            for columns in _spans(w, size[1], wide, *common):
                pixels = (images, rows.outputs, columns.outputs)
                yield _Block(pixels, band[..., columns.inputs], rows, columns, memory)
