"""`segtrain data stats`: what a split holds, in numbers and as a picture."""

from __future__ import annotations

import io
import typing
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from segtrain.augmentation.objects import objects_of
from segtrain.commands.dataset import split_of
from segtrain.commands.parts import check_kind
from segtrain.data import DATA
from segtrain.data.survey.measure import Measures, measure
from segtrain.data.survey.stats import Frequency, frequency_of
from segtrain.loss.class_weights import Weighting, class_weights
from segtrain.report.class_bars import class_bars
from segtrain.run.storage import json_text, probe, storage, write_atomic, write_json
from segtrain.sample import Facts
from segtrain.task.semantic import semantic
from segtrain.text import amount, count, number, say, table

RULES = tuple(rule for rule in typing.get_args(Weighting) if rule != "none")
SIZES = 8
"""Most frequent image sizes that are named."""


def data_stats(config: dict, stop) -> dict:
    """Prints the statistics of a split as tables or JSON, writes stats.json and stats.png if `output` is set,
    and returns what stats.json holds."""
    with stop.at_once():
        task = semantic()
        data = DATA.build(config["data"], target=task.target)
        check_kind(task, data.facts, config)
        split = split_of(data, config["split"])
        output = config["output"] and Path(config["output"])
        if output:
            with storage(output):
                output.mkdir(parents=True, exist_ok=True)
            probe(output, 1 << 20)
        found = measure(split, data.facts, objects_of)
    frequency = frequency_of(found.pixels, split)
    record = {"data": config["data"], "split": config["split"], **as_record(found, frequency, data.facts)}
    if config["json"]:
        print(json_text(record), flush=True)
    else:
        say(*_lines(record, config["data"]["name"]))
    if output:
        picture = io.BytesIO()
        class_bars(record, data.facts.palette, f"{config['data']['name']} {config['split']}").save(
            picture, "png"
        )
        write_json(output / "stats.json", record)
        write_atomic(output / "stats.png", picture.getvalue())
        if not config["json"]:
            say(f"written   {output / 'stats.json'}, {output / 'stats.png'}")
    return record


def as_record(found: Measures, frequency: Frequency, facts: Facts) -> dict:
    """The statistics as plain data, with the class weights by each rule of loss.class_weights."""
    pixels = torch.as_tensor(frequency.pixels), torch.as_tensor(frequency.in_images)
    weights = {rule: class_weights(rule, 1.0, *pixels).tolist() for rule in RULES}
    labelled = int(frequency.pixels.sum())
    images = (found.pixels > 0).sum(axis=0)
    classes = {}
    for index, name in enumerate(facts.classes):
        classes[name] = {
            "pixels": int(frequency.pixels[index]),
            "share": float(frequency.pixels[index] / labelled),
            "images": int(images[index]),
            "weights": {rule: weights[rule][index] for rule in RULES},
            "objects": _quartiles(found.areas[index]),
        }
    total = int(found.sizes.prod(axis=1).sum())
    return {
        "images": len(found.sizes),
        "pixels": total,
        "unlabelled": found.num_unlabelled,
        "unlabelled_share": found.num_unlabelled / total,
        "mean": list(found.mean),
        "std": list(found.std),
        "height": _extent(found.sizes[:, 0]),
        "width": _extent(found.sizes[:, 1]),
        "sizes": [
            {"height": height, "width": width, "images": images}
            for (height, width), images in Counter(map(tuple, found.sizes.tolist())).most_common()
        ],
        "objects": sum(map(len, found.areas)),
        "classes": classes,
    }


def _extent(values: np.ndarray) -> dict[str, float]:
    return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}


def _quartiles(areas: np.ndarray) -> dict | None:
    """Number of objects and quartiles of their areas in pixels; None without objects."""
    if not len(areas):
        return None
    low, first, median, third, high = np.percentile(areas, [0, 25, 50, 75, 100]).tolist()
    areas_px = {"min": low, "first_quartile": first, "median": median, "third_quartile": third, "max": high}
    return {"count": len(areas), "area_px": areas_px}


# --- presentation


def _lines(record: dict, name: str) -> list[str]:
    with_objects = record["objects"] > 0
    head = ["class", "pixels", "share %", "images", *(f"w {rule}" for rule in RULES)]
    head += ["objects", "median px"] if with_objects else []
    rows = []
    for class_name, one in record["classes"].items():
        row = [class_name, amount(one["pixels"]), number(100 * one["share"], 2), str(one["images"])]
        row += [number(one["weights"][rule], 3) for rule in RULES]
        if with_objects:
            objects = one["objects"]
            median = None if objects is None else objects["area_px"]["median"]
            row += [str(0 if objects is None else objects["count"]), number(median, 0)]
        rows.append(row)
    return [
        f"{name} {record['split']}: {count(record['images'], 'image')}, {amount(record['pixels'])} pixels, "
        f"{100 * record['unlabelled_share']:.2f} % without label",
        "",
        *table(head, rows),
        "",
        "w: class weights by the rules of loss.class_weights; shares are of the labelled pixels",
        f"mean      {_listed(record['mean'])} of the channels, on 0..1",
        f"std       {_listed(record['std'])}",
        *_size_lines(record),
    ]


def _size_lines(record: dict) -> list[str]:
    frequent = ", ".join(
        f"{one['height']}x{one['width']} ({one['images']})" for one in record["sizes"][:SIZES]
    )
    if len(record["sizes"]) == 1:
        return [f"size      {record['height']['min']}x{record['width']['min']} (height x width), all images"]
    more = len(record["sizes"]) - SIZES
    return [
        *(
            f"{key:<10}{record[key]['min']} to {record[key]['max']}, median {record[key]['median']:g}"
            for key in ("height", "width")
        ),
        f"sizes     {frequent}" + (f" and {more} more" if more > 0 else ""),
    ]


def _listed(values: list[float]) -> str:
    return "[" + ",".join(f"{value:.4f}" for value in values) + "]"
