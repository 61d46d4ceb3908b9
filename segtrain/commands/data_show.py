"""`segtrain data show`: a picture of samples, before and after augmentation."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from segtrain.commands.dataset import split_of
from segtrain.commands.parts import check_kind
from segtrain.commands.runtime import augmentation, draws, runtime_of
from segtrain.data import DATA
from segtrain.data.selection import selected
from segtrain.errors import ConfigError
from segtrain.loader.reader import Reader
from segtrain.model.encoder.weights import IMAGENET, adapted
from segtrain.report.sheet import samples
from segtrain.run.storage import probe, storage, write_atomic
from segtrain.sample import Facts, Sample
from segtrain.settings import Sampler
from segtrain.task import TASK
from segtrain.text import say, table

HEADS = ("original image", "original label", "augmented image", "augmented label")


def data_show(config: dict, stop) -> list[list[Sample]]:
    """Draws samples at consecutive positions of a training, writes the picture and prints what it shows;
    returns the samples of each row: as stored, and if there is any augmentation, augmented. Each sample is
    drawn as its image and its label, alone or over the image (overlay).

    Pixels outside the image are filled with the data set's mean or, if it states none, with ImageNet's; a
    training fills them with the mean of its network's normalisation, which for most networks is the same.
    """
    output = Path(config["output"])
    if output.suffix.lower() != ".png":
        raise ConfigError(f"output is {config['output']!r}; give the name of a PNG file, such as sheet.png")
    with stop.at_once():
        with storage(output):
            output.parent.mkdir(parents=True, exist_ok=True)
        probe(output.parent, 1 << 20)
        task = TASK.build(config["task"])
        data = selected(DATA.build(config["data"], target=task.target), Sampler(**config["sampler"]))
        check_kind(task, data, config)
        rows = _rows(config, task, data.facts, split_of(data, config["split"]))
        title = f"{config['data']['name']} {config['split']}, seed {config['seed']}, augmentation: "
        title += ", ".join(config["augmentation"]) or "none"
        drawn = [row[2:] for row in rows]
        captions = [
            f"position {position}: {row[2].name or row[1]}" for position, row in _numbered(config, rows)
        ]
        heads = HEADS[: 2 * len(drawn[0])]
        picture = samples(drawn, heads, captions, data.facts, task.picture, title, config["overlay"])
    content = io.BytesIO()
    picture.save(content, "png")
    write_atomic(output, content.getvalue())
    head = ("position", "index", "height x width", "name")
    lines = [
        (str(position), str(index), f"{stored.image.shape[0]}x{stored.image.shape[1]}", name)
        for position, (index, name, stored, *_) in _numbered(config, rows)
    ]
    say(*table(head, lines, left=(3,)), f"written   {output}")
    return drawn


def _rows(config: Mapping, task, facts: Facts, split) -> list[tuple]:
    """(index, name, sample as stored[, augmented]) of each position."""
    facts = replace(facts, normalisation=facts.normalisation or adapted(IMAGENET, facts.channels))
    runtime = runtime_of(task, facts, split, skip_bad=False)
    ops = augmentation(config["augmentation"], facts, runtime)
    reader = Reader(split, tuple(ops), config["seed"], draws=draws(config["sampler"], runtime))
    rows = []
    for position in range(config["position"], config["position"] + config["num"]):
        index, focus = reader.order.drawn(position)
        row = (index, split.name(index), reader.raw(index))
        rows.append((*row, reader.sample(position, index, [], focus)) if ops else row)
    return rows


def _numbered(config: Mapping, rows: list) -> enumerate:
    return enumerate(rows, config["position"])
