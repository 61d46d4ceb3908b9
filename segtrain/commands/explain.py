"""`segtrain explain`: what the mIoU of a run is lost to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from segtrain.checkpoint.reading import read
from segtrain.checkpoint.restore import build_from
from segtrain.commands.dataset import data_of
from segtrain.commands.parts import same_classes
from segtrain.commands.prepare import prepare
from segtrain.commands.results import output_folder, removed_if_empty, write_scores
from segtrain.commands.scored import scored_split
from segtrain.commands.scoring import Scoring, check_score, score_split, scoring_of_run
from segtrain.data.joined import SubsetSplit
from segtrain.errors import ConfigError
from segtrain.evaluate import explanation
from segtrain.report.sheet import sheet
from segtrain.run.storage import probe
from segtrain.task import task_of
from segtrain.text import say


def explain(config: dict, stop) -> dict:
    """Splits the wrong pixels of a run's checkpoint on a split into missed and invented objects, boundaries
    and confused areas. Prints the mIoU that each kind costs, writes it to explain.json with a contact sheet
    of the worst images, and returns what explain.json holds."""
    device = prepare(config)
    checkpoint = read(config["run"], config["checkpoint"])
    model, facts = build_from(checkpoint, config["model"])
    description = checkpoint.description
    task = task_of(description)
    if task.score != "miou" or task.target.labels:
        raise ConfigError(
            f"explain splits the mIoU of classes that exclude each other, and task={task.name} has none"
        )
    data = data_of(config, config["run"], description, task.target)
    same_classes(facts, data.facts, config["run"], task.target)
    scored = scored_split(config, data, description, config["run"])
    config = {**config, "split": scored.name}
    scoring = _scoring(config, task, facts, description)
    check_score(scoring)
    folder = output_folder(config, description["step"], "explain")
    with removed_if_empty(None if config["output"] else folder):
        probe(folder, 1 << 20)
        if scored.lines:
            say(*scored.lines)

        def run(part, pictures: int, progress: str):
            settings = replace(scoring.settings, pictures=pictures)
            chosen = replace(scoring, settings=settings)
            return score_split(chosen, model, part, device, stop, progress, kept=["confusion"])

        model.to(device)
        scores = run(scored.split, 0, f"explaining {scored.name}")
        metric, confusion = scoring.metrics["mistakes"], scoring.metrics["confusion"]
        of_images = confusion.resampled(confusion.parts(scores.per_image["confusion"]).numpy())["miou"]
        worst = explanation.worst(of_images, scores.positions, config["num"], scored.split)
        record = explanation.explanation(metric, scores.totals["mistakes"], facts)
        record["worst"] = [{"name": scored.split.name(place), "miou": miou} for place, miou in worst]
        made = {"split": scored.name, "checkpoint": description["step"], "data": config["data"]}
        record["protocol"] = {**scores.protocol, **made}
        picture = None
        if worst:
            again = run(SubsetSplit(scored.split, [place for place, _ in worst]), len(worst), "drawing")
            rows = [again.pictures[again.positions.index(place)] for place in range(len(worst))]
            kinds = [(words, explanation.COLOURS[kind]) for kind, words in explanation.WORDS.items()]
            picture = sheet(
                rows,
                facts,
                task.picture,
                lambda target, made, facts: explanation.painted(metric, target, made, facts.ignore_index),
                f"{config['model']['name']} on {config['data']['name']} {scored.name}: the worst images",
                captions=[f"mIoU {one['miou']:.3f}: {one['name']}" for one in record["worst"]],
                further=kinds,
            )
        written = write_scores(folder / "explain.json", record, folder / "worst.png", picture)
        say(*explanation.lines(record), written)
    return record


def _scoring(config: Mapping, task, facts, description: Mapping) -> Scoring:
    """The scoring of `segtrain evaluate`, with the metrics that explain."""
    options = {key: config[key] for key in ("band_px", "min_share")}
    metrics = {"confusion": {}, "mistakes": options}
    return scoring_of_run({**config, "metric": metrics}, task, facts, description)
