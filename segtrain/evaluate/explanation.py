"""What the mIoU of an evaluation is lost to, in tables and as explain.json."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from segtrain.data.parts import Split
from segtrain.evaluate.units import blocks_of
from segtrain.metric.mistakes import KINDS, WORDS, Mistakes, Tally
from segtrain.sample import Facts
from segtrain.text import number, table

MOST_PAIRS = 10
COLOURS = {
    "missed": (240, 150, 0),
    "invented": (150, 60, 190),
    "boundary": (60, 150, 230),
    "confused": (200, 30, 30),
}


def explanation(metric: Mistakes, counts: torch.Tensor, facts: Facts) -> dict:
    """The mIoU, the wrong pixels of each kind, the pairs of classes that are confused most, and the mIoU that
    would be gained if they were right: as explain.json holds them. counts: of `metric`, summed over the
    images."""
    tally = metric.tally(counts.cpu())
    miou = metric.miou(tally.whole)
    true, missed, predicted, invented = tally.objects
    kinds = {kind: _part(metric, tally, wrong, miou) for kind, wrong in zip(KINDS, tally.wrong, strict=True)}
    kinds["missed"] |= {"objects": missed, "of": true}
    kinds["invented"] |= {"objects": invented, "of": predicted}
    return {
        "miou": miou,
        "labelled_pixels": int(tally.whole.sum()),
        "wrong_pixels": int(tally.wrong.sum()),
        "kinds": kinds,
        "pairs": _pairs(metric, tally, miou, facts),
    }


def _part(metric: Mistakes, tally: Tally, wrong: torch.Tensor, miou: float | None) -> dict:
    """Some of the wrong pixels (C×A), and the mIoU if they were right."""
    mended, all_wrong = metric.miou(tally.mended(wrong)), int(tally.wrong.sum())
    pixels = int(wrong.sum())
    return {
        "pixels": pixels,
        "share": pixels / all_wrong if all_wrong else 0.0,
        "miou_if_mended": mended,
        "gain": None if miou is None else mended - miou,
    }


def _pairs(metric: Mistakes, tally: Tally, miou: float | None, facts: Facts) -> list[dict]:
    """The pairs (true class, predicted class) with most wrong pixels, those at boundaries left out."""
    inside = tally.wrong.sum(0) - tally.wrong[KINDS.index("boundary")]  # C×A
    order = inside.flatten().argsort(descending=True, stable=True)[:MOST_PAIRS].tolist()
    found = []
    for row, column in (divmod(place, inside.shape[1]) for place in order):
        if inside[row, column]:
            wrong = torch.zeros_like(inside)
            wrong[row, column] = inside[row, column]
            names = {"class": facts.classes[row], "predicted": facts.classes[column]}
            found.append({**names, **_part(metric, tally, wrong, miou)})
    return found


def lines(record: dict) -> list[str]:
    """The explanation as tables for the terminal."""
    rows = []
    for kind, part in record["kinds"].items():
        objects = f"{part['objects']} of {part['of']}" if "objects" in part else ""
        rows.append((WORDS[kind], objects, *_cells(part)))
    whole = 1.0 if record["wrong_pixels"] else 0.0
    rows.append(("all", "", str(record["wrong_pixels"]), f"{100 * whole:.1f} %", "", ""))
    head = ("lost to", "objects", "wrong pixels", "share", "mIoU if mended", "gain")
    said = [f"mIoU {number(record['miou'])}", *table(head, rows)]
    pairs = [(one["class"], one["predicted"], *_cells(one)) for one in record["pairs"]]
    if pairs:
        head = (
            "away from boundaries",
            "predicted as",
            "wrong pixels",
            "share",
            "mIoU if mended",
            "gain",
        )
        said += ["", *table(head, pairs, left=(0, 1))]
    return said


def _cells(part: dict) -> tuple[str, ...]:
    numbers = (number(part["miou_if_mended"]), number(part["gain"]))
    return (str(part["pixels"]), f"{100 * part['share']:.1f} %", *numbers)


def worst(miou: np.ndarray, positions: Sequence[int], num: int, split: Split) -> list[tuple[int, float]]:
    """(position, mIoU) of `num` images with a low mIoU, the lowest first: the worst of each block of
    consecutive images, because neighbouring frames look alike, then others if those are not enough.

    miou: of each image, N, NaN for one without a label. positions: of these images in `split`.
    """
    block_of = blocks_of(split).of
    found = sorted((one, place) for one, place in zip(miou.tolist(), positions, strict=True) if one == one)
    of_block: dict[int, tuple[float, int]] = {}
    for one in found:
        of_block.setdefault(block_of[one[1]], one)
    first = list(of_block.values())
    chosen = [*first, *(one for one in found if one not in first)][:num]
    return [(place, one) for one, place in sorted(chosen)]


def painted(metric: Mistakes, target: np.ndarray, prediction: np.ndarray, ignore_index: int) -> np.ndarray:
    """H×W×3 uint8: wrong pixels in the colour of their kind, right ones light grey, pixels without a label
    white."""
    table_of_colours = np.array([(225, 225, 225), *(COLOURS[kind] for kind in KINDS)], np.uint8)
    picture = table_of_colours[metric.of(target, prediction).kinds]
    picture[target == ignore_index] = 255
    return picture
