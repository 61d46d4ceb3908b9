"""The chart of the statistics of a split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image

from segtrain.report.bars import Bar, chart, panel
from segtrain.text import count

SIZES = 8
"""Most frequent image sizes that have a bar."""
GREY = (140, 150, 165)


def class_bars(record: Mapping, palette: Sequence[tuple[int, int, int]], title: str) -> Image.Image:
    """The chart of the statistics in `record`, as stats.json holds them: of each class, its shares of pixels
    and of images and the areas of its objects; and the sizes of the images."""
    classes = list(zip(record["classes"].items(), palette, strict=True))
    most = max(one["share"] for (_, one), _ in classes)
    images = record["images"]
    panels = [
        panel(
            "share of the labelled pixels",
            [
                Bar(name, colour, 0, one["share"] / most, f"{100 * one['share']:.2f} %")
                for (name, one), colour in classes
            ],
        ),
        panel(
            "images with the class",
            [
                Bar("", colour, 0, one["images"] / images, f"{100 * one['images'] / images:.1f} %")
                for (_, one), colour in classes
            ],
        ),
    ]
    if record["objects"]:
        panels.append(_objects_panel(classes))
    chart_title = f"{title}: {count(images, 'image')}"
    return chart(chart_title, [panels, [_sizes_panel(record["sizes"])]])


def _sizes_panel(sizes: Sequence[Mapping]) -> Image.Image:
    """The most frequent sizes of images, and all others together."""
    numbers = {f"{one['height']}x{one['width']}": one["images"] for one in sizes[:SIZES]}
    if len(sizes) > SIZES:
        numbers["others"] = sum(one["images"] for one in sizes[SIZES:])
    most = max(numbers.values())
    bars = [Bar(size, GREY, 0, number / most, str(number)) for size, number in numbers.items()]
    return panel("image sizes, height x width", bars)


def _objects_panel(classes: Sequence[tuple]) -> Image.Image:
    """The middle half of the objects' areas, on a logarithmic scale, with a line at the median."""
    present = [one["objects"]["area_px"] for (_, one), _ in classes if one["objects"]]
    low = math.log(max(1, min(one["min"] for one in present)))
    high = max(math.log(max(one["max"] for one in present)), low + 1e-6)

    def place(area: float) -> float:
        return (math.log(max(1, area)) - low) / (high - low)

    bars = []
    for (_, one), colour in classes:
        if one["objects"] is None:
            bars.append(Bar("", colour, 0, 0, "-"))
            continue
        area = one["objects"]["area_px"]
        ends = place(area["first_quartile"]), place(area["third_quartile"])
        bars.append(Bar("", colour, *ends, f"{area['median']:.0f} px", place(area["median"])))
    return panel("area of objects: middle half, median (log)", bars)
