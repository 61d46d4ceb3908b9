"""A training step on a GPU, beside a plain loop and beside what the card itself reaches.

scripts/gpu_bench.py [ROW…] [--list] [--quick] [--json FILE] [--batch N] [--size HxW] [--workers N]
                     [--device cuda|cpu]

DeepLabv3+ with ResNet-50 at output stride 16, bf16, 19 classes, 16 images of 512x1024 unless said otherwise.
With --device cpu a tiny network makes a few steps on tiny images: that shows that the script runs, and its
numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from bench import table
from benchmarks import gpu_step
from benchmarks.gpu_data import data_speed
from benchmarks.gpu_step import Case
from benchmarks.paired import Left
from benchmarks.roofs import Roofs, measured_roofs

GOAL = 0.6
"""Share of the un-fused roof that the eager step is to reach; the compiled one is to be faster still."""


@dataclass
class Findings:
    """What has been measured so far, for the rows that need it: each is measured once."""

    case: Case
    roofs: Roofs | None = None
    unfused: dict[str, float] | None = None
    sides: dict[str, list[float] | str] | None = None

    def of_roofs(self) -> Roofs:
        self.roofs = self.roofs or measured_roofs(self.case.device, self.case.dtype, self.case.quick)
        return self.roofs

    def of_sides(self) -> dict[str, list[float] | str]:
        self.sides = self.sides or gpu_step.seconds_of_sides(self.case)
        gpu_step.release(self.case.device)
        return self.sides

    def fastest(self) -> tuple[str, float] | None:
        """The fastest of segtrain's sides and its images/s; None if none of them runs."""
        speeds = {
            name: self.case.batch / median(seconds)
            for name, seconds in self.of_sides().items()
            if not isinstance(seconds, str) and name != "plain loop"
        }
        return max(speeds.items(), key=lambda one: one[1], default=None)


def roofs(found: Findings) -> tuple[list[str], dict]:
    """TFLOP/s of a matrix product in the precision of the step and GB/s of a copy, read and written: the most
    that the card gives."""
    measured = found.of_roofs()
    lines = [
        f"matmul roof  {measured.flops / 1e12:.3g} TFLOP/s ({found.case.amp})",
        f"copy roof    {measured.bytes / 1e9:.4g} GB/s read and written",
    ]
    return lines, {"flops": measured.flops, "bytes": measured.bytes}


def unfused(found: Findings) -> tuple[list[str], dict]:
    """The un-fused roof: seconds of a step's convolutions at the matmul roof, and of all other operations at
    the copy roof, their tensors read and written once. The roof of row step is that of the plain loop."""
    case, measured = found.case, found.of_roofs()
    counted = gpu_step.work_of(case)
    lines, plain = [], {}
    for name, work in counted.items():
        of_flops, of_bytes = work.seconds(measured)
        plain[name] = {**work.plain(), "seconds": of_flops + of_bytes}
        lines.append(
            f"{name:<12} {work.flops.total() / case.batch / 1e9:.4g} GFLOP and "
            f"{work.bytes.total() / case.batch / 1e9:.3g} GB an image: {1e3 * of_flops:.4g} + "
            f"{1e3 * of_bytes:.4g} ms a step, at most {case.batch / (of_flops + of_bytes):.4g} images/s"
        )
    found.unfused = {name: one["seconds"] for name, one in plain.items()}
    return lines, plain


def step(found: Findings) -> tuple[list[str], dict]:
    """images/s of segtrain's step and of torchvision's reference step on the same network, in turns: median
    [slowest block, fastest block], and the share of the un-fused roof."""
    if found.unfused is None:
        unfused(found)
    roof_s, shares = found.unfused["plain loop"], {}
    lines = [("side", "images/s", "of the un-fused roof", "against the plain loop")]
    sides = found.of_sides()
    base = sides["plain loop"]
    for name, seconds in sides.items():
        if isinstance(seconds, str):
            lines.append((name, seconds[:300], "", ""))
            continue
        speeds = [found.case.batch / one for one in seconds]
        shares[name] = roof_s / median(seconds)
        ratio = "-" if isinstance(base, str) else f"{median(base) / median(seconds):.2f}x"
        bounds = f"{median(speeds):.4g} [{min(speeds):.4g}, {max(speeds):.4g}]"
        lines.append((name, bounds, f"{shares[name]:.1%}", ratio))
    eager = max((share for name, share in shares.items() if name.startswith("eager")), default=math.nan)
    fused = max((share for name, share in shares.items() if name.startswith("compiled")), default=math.nan)
    goals = {f"eager >= {GOAL:.0%} of the roof": eager >= GOAL, "compiled above eager": fused > eager}
    said = [f"goal: {goal}: {'yes' if reached else 'no'}" for goal, reached in goals.items()]
    return [*table(lines).splitlines(), *said], {"seconds": sides, "shares": shares, "goals": goals}


def memory(found: Findings) -> tuple[list[str], dict]:
    """Peak memory of segtrain's step with the loss in bands (segtrain/loss/banded.py) and with logits that
    are upsampled at once."""
    peaks = gpu_step.peak_memory(found.case)
    shown = {
        name: peak if isinstance(peak, str) else f"{peak / 2**20:.5g} MiB" for name, peak in peaks.items()
    }
    return [f"{name:<18} {peak}" for name, peak in shown.items()], peaks


def data(found: Findings) -> tuple[list[str], dict]:
    """images/s of the loader alone, from JPEG and PNG of 1024x2048 to augmented crops, and how long
    segtrain's loop waits for it."""
    speed = data_speed(found.case)
    alone, fastest = speed["loader_images_per_s"], found.fastest()
    lines = [
        f"loader alone {alone:.4g} images/s with {found.case.workers} workers",
        f"loop         {speed['loop_images_per_s']:.4g} images/s from files (eager, channels_last), waiting "
        f"for data {speed['waiting']:.1%} of the time",
    ]
    if fastest is not None:
        name, needed = fastest
        speed["fastest_step_images_per_s"] = needed
        workers = math.ceil(needed / alone * max(found.case.workers, 1))
        enough = alone >= needed
        lines.append(
            f"goal: the loader is no slower than the step ({name}: {needed:.4g} images/s): "
            f"{'yes' if enough else f'no; about {workers} workers of this speed would be enough'}"
        )
    return lines, speed


ROWS: dict[str, Callable[[Findings], tuple[list[str], dict]]] = {
    "roofs": roofs,
    "unfused": unfused,
    "step": step,
    "memory": memory,
    "data": data,
}


def about(row: Callable) -> str:
    return " ".join((row.__doc__ or "").split())


def measured(names: list[str], found: Findings) -> tuple[dict[str, dict], bool]:
    """The numbers of each row, printed as they come, and whether all rows ran. A row that fails leaves the
    others."""
    numbers, whole = {}, True
    for name in names:
        print(f"\n{name}: {about(ROWS[name])}", flush=True)
        try:
            lines, numbers[name] = ROWS[name](found)
        except KeyboardInterrupt:
            lines, numbers[name], whole = ["interrupted"], {"failed": "interrupted"}, False
            names = []
        except Left as reason:
            lines, numbers[name] = [f"left out: {reason}"], {"left_out": str(reason)}
        except Exception as error:
            lines, whole = [failure(error, found.case)], False
            numbers[name] = {"failed": lines[0]}
        print("\n".join(f"  {line}" for line in lines), flush=True)
        if not names:
            break
    return numbers, whole


def failure(error: Exception, case: Case) -> str:
    if not gpu_step.is_out_of_memory(error):
        traceback.print_exc()
        return f"failed: {type(error).__name__}: {error}"
    error.__traceback__ = None  # its frames hold tensors
    fits = gpu_step.largest_batch(case)
    tried = f"out of memory with {case.batch} images of {case.size[0]}x{case.size[1]}"
    return f"{tried}; {fits} fit: --batch {fits}" if fits else f"{tried}, and with 1; use a smaller --size"


def size_of(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and min(int(height), int(width)) >= 32):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 512x1024, sides from 32")
    return int(height), int(width)


def at_least(lowest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdigit() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {lowest}")
        return int(text)

    return number


def parsed(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu_bench.py",
        description="A training step beside a plain loop and beside what the card reaches.",
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; none: all")
    parser.add_argument("--list", action="store_true", help="say what the rows are")
    parser.add_argument("--quick", action="store_true", help="a few steps: shows that it works, says little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument("--batch", type=at_least(1), metavar="N", help="images a step (16)")
    parser.add_argument("--size", type=size_of, metavar="HxW", help="of the images (512x1024)")
    parser.add_argument("--workers", type=at_least(0), metavar="N", help="of the loader (CPUs, at most 16)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 …; cpu: a tiny form to try the script")
    arguments = parser.parse_args(words)
    unknown = [name for name in arguments.rows if name not in ROWS]
    if unknown:
        parser.error(f"{unknown[0]} is not a row; rows are {', '.join(ROWS)}")
    kind = arguments.device.partition(":")[0]
    if kind not in ("cuda", "cpu"):
        parser.error(f"--device {arguments.device}: cuda, cuda:1 … or cpu")
    if kind == "cuda" and not (arguments.list or torch.cuda.is_available()):
        parser.error("there is no CUDA GPU here; --device cpu tries the script, and measures nothing")
    return arguments


def case_of(arguments: argparse.Namespace) -> Case:
    device = torch.device(arguments.device)
    if device.type == "cpu":
        case = Case(device, 2, (64, 96), "test_resnet", "aot_eager", workers=0, quick=True)
    else:
        workers = min(os.cpu_count() or 1, 16)
        case = Case(device, 16, (512, 1024), "resnet50", "inductor", workers, quick=arguments.quick)
    given = {name: getattr(arguments, name) for name in ("batch", "size", "workers")}
    return replace(case, **{name: value for name, value in given.items() if value is not None})


def machine(case: Case) -> str:
    card = "CPU"
    if case.device.type == "cuda":
        properties = torch.cuda.get_device_properties(case.device)
        card = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    return f"{card}, {os.cpu_count()} CPUs, Python {platform.python_version()}, torch {torch.__version__}"


def main(words: list[str] | None = None) -> int:
    arguments = parsed(words)
    if arguments.list:
        print(table([(name, about(row)) for name, row in ROWS.items()]))
        return 0
    case = case_of(arguments)
    tiny = case.device.type == "cpu"
    network = f"DeepLabv3+ {case.encoder}, output stride 16, {case.classes} classes, {case.amp}"
    print(machine(case), f"{network}, {case.batch} images of {case.size[0]}x{case.size[1]} a step", sep="\n")
    warning = "on a CPU, with a tiny network: these numbers mean nothing; they show that the script runs"
    if tiny or case.quick:
        print(warning if tiny else "quick: too short to conclude from")
    numbers, whole = measured(arguments.rows or list(ROWS), Findings(case))
    if tiny:
        print(f"\n{warning}")
    if arguments.json:
        about_run = {"machine": machine(case), "quick": case.quick, "means_nothing": tiny}
        shape = {"batch": case.batch, "size": case.size, "encoder": case.encoder, "workers": case.workers}
        arguments.json.write_text(json.dumps({**about_run, **shape, "rows": numbers}, indent=1))
    return int(not whole)


if __name__ == "__main__":
    sys.exit(main())
