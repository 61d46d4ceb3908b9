"""`make bench`: speed beside named peers, both sides measured in turns in one run.

scripts/bench.py [ROW…] [--list] [--quick] [--json FILE]

Each pair of measurements takes both sides in turns, so that a machine that is slower for a while is so for
both. Printed are the medians of both sides and the median of the number that the goal is about, over the
pairs, with its 95 % interval. A goal counts as reached when the whole interval keeps it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from benchmarks import counts, inference, loop, loss, reading, start, step
from benchmarks.paired import Left, Result


@dataclass(frozen=True)
class Row:
    """what: in a few words. measure: quick -> Result; its docstring says against what."""

    what: str
    measure: Callable[[bool], Result]

    def about(self) -> str:
        return " ".join((self.measure.__doc__ or "").split())


ROWS = {
    "counts": Row("confusion matrix, 8x512x1024 px", counts.torchmetrics_update),
    "counts-masked": Row("confusion matrix, 8x512x1024 px", counts.masked_update),
    "files": Row("JPEG + label PNG to a crop", reading.from_files("torchvision", 4)),
    "files-full": Row("JPEG + label PNG to a crop", reading.from_files("albumentations", 1.5)),
    "disk-cache": Row("decoded on disk to a crop", reading.from_disk_cache("torchvision", 30)),
    "disk-cache-full": Row("decoded on disk to a crop", reading.from_disk_cache("albumentations", 10)),
    "geometry": Row("labels of one warp", reading.geometry),
    "loop": Row("loop around a step of next to nothing", loop.on_nothing),
    "loop-share": Row("loop around the default unet, 8 images of 128 px", loop.on_small_unet),
    "help": Row("segtrain --help, CPU time", start.help_text),
    "step": Row("training step with data, 8 crops of 256 px", step.step_of(step.LITE_DEEPLAB, 256, 8, 1.0)),
    "step-mobile": Row(
        "the same, deeplabv3plus with MobileNetV3, 2 of 512 px",
        step.step_of(step.MOBILE_DEEPLAB, 512, 2, 0.85, "channels_last"),
    ),
    "step-lraspp": Row(
        "the same, lraspp, 4 of 512 px", step.step_of(step.LRASPP, 512, 4, 0.85, "channels_last")
    ),
    "tiles": Row("tiles over 1024x2048 px, 19 classes", inference.blending),
    "argmax": Row("classes of 1024x2048 px of 19", inference.decisions),
    "scoring": Row("scoring a photograph of 480x360 px", inference.scoring),
    "predicting": Row("a photograph of 480x360 px to PNG", inference.predicting),
    "recipe": Row("step of experiment=camvid_lite0 with data", step.camvid_recipe),
    "loss-19": Row("loss at 512x1024, 19 classes, logits at 1/4", loss.time_of(19, 4)),
    "loss-19-8": Row("loss at 512x1024, 19 classes, logits at 1/8", loss.time_of(19, 8)),
    "loss-150": Row("loss at 512x1024, 150 classes, logits at 1/4", loss.time_of(150, 4)),
    "loss-150-8": Row("loss at 512x1024, 150 classes, logits at 1/8", loss.time_of(150, 8)),
    "loss-memory-19": Row("memory of loss-19", loss.memory_of(19, 4)),
    "loss-memory-19-8": Row("memory of loss-19-8", loss.memory_of(19, 8)),
    "loss-memory-150": Row("memory of loss-150", loss.memory_of(150, 4)),
    "loss-memory-150-8": Row("memory of loss-150-8", loss.memory_of(150, 8)),
    "step-memory": Row("memory of a step at 512x1024, 150 classes", loss.step_memory),
}

COLUMNS = ("row", "what", "ours", "theirs", "peer", "compared, median [95 %]", "goal", "reached")


def cells(name: str, result: Result) -> tuple[str, ...]:
    """A line of the table."""
    middle, low, high = result.judged()
    form = result.goal.form
    number, _, unit = form.format(middle).partition(" ")
    bounds = ", ".join(form.format(bound).partition(" ")[0].rstrip("x") for bound in (low, high))
    sides = (in_units(median(side)) if result.seconds else "-" for side in (result.ours, result.theirs))
    compared = f"{number} {unit} [{bounds}]"
    return (
        name,
        ROWS[name].what,
        *sides,
        result.peer,
        compared,
        result.goal.text,
        "yes" if result.reached() else "no",
    )


def in_units(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def table(lines: list[tuple[str, ...]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def machine() -> str:
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    system = (
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}"
    )
    return f"{os.cpu_count()} CPUs{load}, {system}"


def measured(names: list[str], quick: bool) -> dict[str, Result | str]:
    """The result of each row, or why there is none; a row that fails, or Ctrl-C, leaves those before it."""
    results: dict[str, Result | str] = {}
    for name in names:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        try:
            results[name] = ROWS[name].measure(quick)
        except Left as reason:
            results[name] = f"left out: {reason}"
        except KeyboardInterrupt:
            results[name] = "failed: interrupted, and the rows after it were not measured"
            break
        except Exception as error:
            traceback.print_exc()
            results[name] = f"failed: {type(error).__name__}: {error}"
    return results


def parsed(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.py", description="Speed beside named peers, both sides measured in turns."
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; none: all")
    parser.add_argument("--list", action="store_true", help="say what the rows are")
    parser.add_argument(
        "--quick", action="store_true", help="smaller and shorter: shows that it works, says little"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    arguments = parser.parse_args(words)
    unknown = [name for name in arguments.rows if name not in ROWS]
    if unknown:
        parser.error(f"{unknown[0]} is not a row; rows are {', '.join(ROWS)}")
    return arguments


def main(words: list[str] | None = None) -> int:
    arguments = parsed(words)
    if arguments.list:
        print(table([(name, row.what, row.about()) for name, row in ROWS.items()]))
        return 0
    before = machine()
    results = measured(arguments.rows or list(ROWS), arguments.quick)
    lines = [cells(name, result) for name, result in results.items() if isinstance(result, Result)]
    print(f"{before}{'; quick: too short to conclude from' if arguments.quick else ''}\n")
    print(table([COLUMNS, *lines]))
    for name, result in results.items():
        if isinstance(result, str):
            print(f"{name}: {result}")
    if arguments.json:
        rows = {
            name: result.plain() if isinstance(result, Result) else {"none": result}
            for name, result in results.items()
        }
        arguments.json.write_text(
            json.dumps({"machine": before, "quick": arguments.quick, "rows": rows}, indent=1)
        )
    return int(any(isinstance(result, str) and result.startswith("failed") for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
