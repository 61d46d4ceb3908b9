"""Upsampling and cross-entropy: time and memory.

scripts/benchmarks/loss.py SIDE CLASSES STRIDE QUICK prints by how many bytes the memory of its process grows.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.paired import Goal, Left, Result, alternating, share, threads, version
from segtrain.commands.prepare import keep_memory
from segtrain.loss import LOSS
from segtrain.model import MODEL
from segtrain.sample import IGNORE, Output

IMAGES, SIZE = 2, (512, 1024)
Logits = Callable[[], Tensor]


def case(classes: int, stride: int, quick: bool) -> tuple[Tensor, Tensor]:
    """Logits at 1/stride of the size with a gradient, and an int64 target of which a tenth is ignored."""
    height, width = (side // (2 if quick else 1) for side in SIZE)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, classes, height // stride, width // stride, generator=generator)
    target = torch.randint(0, classes, (IMAGES, height, width), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.1] = IGNORE
    return logits.requires_grad_(), target


def ours(classes: int) -> Callable[[Output, Tensor], Tensor]:
    """segtrain's cross-entropy."""
    loss = LOSS.build(
        {"name": "cross_entropy"}, num_classes=classes, ignore_index=IGNORE, class_frequency=None
    )

    def mean(output: Output, target: Tensor) -> Tensor:
        total, weight = loss(output, target)
        return total / weight

    return mean


def theirs(classes: int) -> Callable[[Output, Tensor], Tensor]:
    """torch's interpolation and cross-entropy."""

    def mean(output: Output, target: Tensor) -> Tensor:
        logits = F.interpolate(output.logits, size=output.size, mode="bilinear", align_corners=False)
        return F.cross_entropy(logits, target, ignore_index=IGNORE)

    return mean


SIDES = {"ours": ours, "theirs": theirs}


def step(loss: Callable, logits: Tensor, target: Tensor) -> None:
    logits.grad = None
    loss(Output(logits, tuple(target.shape[-2:])), target).backward()


def time_of(classes: int, stride: int) -> Callable[[bool], Result]:
    def measure(quick: bool) -> Result:
        """Forward and backward on 2 images, float32, one thread, against interpolate and cross_entropy; equal
        gradients are checked. Both sides keep freed memory."""
        keep_memory()
        logits, target = case(classes, stride, quick)
        sides = {name: side(classes) for name, side in SIDES.items()}
        with threads(1):
            _check(sides, logits, target)
            calls = [lambda loss=loss: step(loss, logits, target) for loss in sides.values()]
            ours_s, theirs_s = alternating(*calls, 3 if quick else 15)
        return Result(f"interpolate + cross_entropy, {version('torch')}", ours_s, theirs_s, share(0.9))

    return measure


def _check(sides: dict[str, Callable], logits: Tensor, target: Tensor) -> None:
    gradients = []
    for loss in sides.values():
        step(loss, logits, target)
        gradients.append(logits.grad)
    error = (gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()
    if error > 1e-6:
        raise Left(f"the gradients differ by {error:.1e}")


def less_memory(limit: float) -> Goal:
    return Goal(f"<= {limit:g}x the memory", lambda a, b: a / b, limit, False, "{:.3f}x the memory")


def memory_of(classes: int, stride: int) -> Callable[[bool], Result]:
    def measure(quick: bool) -> Result:
        """Growth of the peak memory of a process by the same, each side in processes of its own."""
        return _grown([str(classes), str(stride)], less_memory(0.15), 1 if quick else 3, quick)

    return measure


def step_memory(quick: bool) -> Result:
    """Growth of the peak memory of a process by one training step of DeepLabv3+ with MobileNetV3 on 2 images,
    150 classes, each side in processes of its own."""
    return _grown(["150", "network"], less_memory(0.75), 1, quick)


def _grown(words: list[str], goal: Goal, pairs: int, quick: bool) -> Result:
    grown: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(pairs):
        for side, numbers in grown.items():
            command = [sys.executable, __file__, side, *words, str(int(quick))]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            if ended.returncode:
                raise Left(f"{' '.join(words)}: {ended.stderr.strip().splitlines()[-1:]}")
            numbers.append(float(ended.stdout))
    peer = f"interpolate + cross_entropy, {version('torch')}"
    return Result(peer, grown["ours"], grown["theirs"], goal, seconds=False)


def growth(run: Callable[[], None]) -> int:
    """By how many bytes a call raises the peak memory of this process above what it holds now."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    reset.write_text("5")  # the peak is the present from here on

    def peak() -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])

    before = peak()
    run()
    return peak() - before


def child(side: str, classes: str, stride: str, quick: str) -> None:
    torch.set_num_threads(1)
    loss = SIDES[side](int(classes))
    step(loss, *case(int(classes), 8, True))  # what the first call alone takes
    if stride == "network":
        torch.manual_seed(0)
        network = MODEL.build(
            {"name": "deeplabv3plus", "encoder": "mobilenetv3_large_100", "weights": "none"},
            out_channels=int(classes),
            num_classes=int(classes),
            in_channels=3,
        )
        target = case(int(classes), 8, bool(int(quick)))[1]
        images = torch.randn(IMAGES, 3, *target.shape[-2:])
        print(growth(lambda: loss(network(images), target).backward()))
    else:
        logits, target = case(int(classes), int(stride), bool(int(quick)))
        print(growth(lambda: step(loss, logits, target)))


if __name__ == "__main__":
    child(*sys.argv[1:])
