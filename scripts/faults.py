"""`make faults`: faults injected into whole runs, and one line of figures for each promise of
docs/reliability.md.

    python scripts/faults.py [CAMPAIGN …] [--list] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from injections import diverging, existing, kills, overrides, resumes, sharing, signals, storage
from injections.figure import PROMISES, Figure, LeftOut

CAMPAIGNS: dict[str, Callable[[bool, Path], list[Figure]]] = {
    "kills": kills.kill_9,
    "resumes": resumes.matrix,
    "signals": signals.random_instants,
    "nan": diverging.not_finite,
    "calls": storage.failing_calls,
    "disks": storage.full_disk,
    "folder": sharing.one_folder,
    "workers": sharing.lost_workers,
    "overrides": overrides.override_lists,
    **{name: existing.campaign(tests) for name, tests in existing.TESTS.items()},
}


def about(campaign: Callable) -> str:
    return " ".join((campaign.__doc__ or "").split())


def machine() -> str:
    import torch

    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = names[0].partition(": ")[2] if names else platform.machine()
    load = f"load {os.getloadavg()[0]:.1f}"
    system = f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    return f"{os.cpu_count()} CPUs ({processor}), {load}, {system}"


def injected(names: list[str], quick: bool, folder: Path) -> tuple[list[Figure], list[str]]:
    """The figures of each campaign, and one line for each that gave none."""
    figures: list[Figure] = []
    without: list[str] = []
    for name in names:
        print(f"injecting {name} …", file=sys.stderr, flush=True)
        began, place = time.monotonic(), folder / name
        place.mkdir()
        try:
            found = CAMPAIGNS[name](quick, place)
        except LeftOut as reason:
            without.append(f"{name}: left out: {reason}")
            continue
        except Exception as error:
            traceback.print_exc()
            without.append(f"{name}: failed: {type(error).__name__}: {error}")
            continue
        figures += found
        seconds = time.monotonic() - began
        for figure in found:
            print("\n    ".join([f"  {line_of(figure)}", *figure.failures]), file=sys.stderr)
        print(f"  {seconds:.0f} s", file=sys.stderr, flush=True)
        shutil.rmtree(place, ignore_errors=True)
    return figures, without


def line_of(figure: Figure) -> str:
    return f"{'ok    ' if figure.ok else 'FAILED'}  {figure.injected}: {figure.count}: {figure.text}"


def summary(figures: list[Figure]) -> list[str]:
    """One line a promise."""
    lines = []
    for number, name in PROMISES.items():
        own = [figure for figure in figures if figure.promise == number]
        if own:
            state = "kept" if all(figure.ok for figure in own) else "BROKEN"
            texts = "; ".join(f"{one.injected} ({one.count}): {one.text}" for one in own)
            lines.append(f"{number} {name}: {state}. {texts}")
    return lines


def parsed(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults.py", description="Faults injected into whole runs.")
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=f"{', '.join(CAMPAIGNS)}; none: all")
    parser.add_argument("--list", action="store_true", help="say what the campaigns inject")
    parser.add_argument("--quick", action="store_true", help="a few of each: shows that they work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    arguments = parser.parse_args(words)
    unknown = [name for name in arguments.campaigns if name not in CAMPAIGNS]
    if unknown:
        parser.error(f"{unknown[0]} is not a campaign; campaigns are {', '.join(CAMPAIGNS)}")
    return arguments


def main(words: list[str] | None = None) -> int:
    arguments = parsed(words)
    if arguments.list:
        for name, campaign in CAMPAIGNS.items():
            print(f"{name}: {about(campaign)}")
        return 0
    began, before = time.monotonic(), machine()
    with tempfile.TemporaryDirectory(prefix="segtrain-faults-", ignore_cleanup_errors=True) as folder:
        figures, without = injected(
            arguments.campaigns or list(CAMPAIGNS), arguments.quick, Path(folder).resolve()
        )
    minutes = (time.monotonic() - began) / 60
    print(f"{before}; {minutes:.1f} minutes{', quick' if arguments.quick else ''}\n")
    print("\n".join([*summary(figures), *without]))
    for figure in figures:
        for failure in figure.failures:
            print(f"FAILED: promise {figure.promise}, {figure.injected}: {failure}")
    if arguments.json:
        content = {"machine": before, "minutes": minutes, "quick": arguments.quick, "without": without}
        content["figures"] = [figure.plain() for figure in figures]
        arguments.json.write_text(json.dumps(content, indent=1))
    return int(not all(figure.ok for figure in figures) or any(": failed: " in one for one in without))


if __name__ == "__main__":
    sys.exit(main())
