"""`segtrain evaluate`: the scores of a checkpoint on a split."""

from __future__ import annotations

from dataclasses import replace

from segtrain.checkpoint.reading import read
from segtrain.checkpoint.restore import build_from
from segtrain.commands.dataset import data_of
from segtrain.commands.parts import same_classes
from segtrain.commands.prepare import prepare
from segtrain.commands.results import (
    contact_sheet,
    output_folder,
    removed_if_empty,
    write_matrix,
    write_scores,
)
from segtrain.commands.scored import scored_split
from segtrain.commands.scoring import score_split, scoring_of_run
from segtrain.commands.tta_report import check_report, report_lines, tta_report
from segtrain.evaluate.table import as_record, extent, lines
from segtrain.run.storage import probe
from segtrain.task import task_of
from segtrain.text import say


def evaluate(config: dict, stop) -> dict:
    """Scores a run's checkpoint on a split. Prints the scores, writes them to scores.json with a contact
    sheet, and returns what scores.json holds."""
    device = prepare(config)
    checkpoint = read(config["run"], config["checkpoint"])
    model, facts = build_from(checkpoint, config["model"])
    description = checkpoint.description
    task = task_of(description)
    data = data_of(config, config["run"], description, task.target)
    same_classes(facts, data.facts, config["run"], task.target)
    scored = scored_split(config, data, description, config["run"])
    config = {**config, "split": scored.name}
    if config["evaluate"]["tta_report"]:
        check_report(config["tta"])
    scoring = scoring_of_run(config, task, facts, description)
    output = output_folder(config, description["step"])
    title = (
        f"{config['model']['name']} on {config['data']['name']} {config['split']}, step {description['step']}"
    )
    with removed_if_empty(None if config["output"] else output):
        probe(output, 1 << 20)
        if scored.lines:
            say(*scored.lines)
        scores = score_split(
            scoring,
            model.to(device),
            scored.split,
            device,
            stop,
            f"evaluating {config['split']}",
            kept=scoring.resampled_metrics(config["bootstrap"]),
        )
        report = []
        if scoring.settings.tta_report:
            report = tta_report(scoring, model, scored.split, device, stop, scores)
        intervals = scoring.intervals(scores, scored.split, config["bootstrap"])
        # The atrous rates follow model.output_stride, so the built network knows them, not the config.
        used = {key: model.built_with().get(key) or value for key, value in config["model"].items()}
        made = {
            "split": config["split"],
            "checkpoint": description["step"],
            "data": config["data"],
            "model": used,
        }
        protocol = {**scores.protocol, **made}
        record = as_record(replace(scores, protocol=protocol), facts)
        record["interval"] = intervals.record(scores, facts)
        if report:
            record["tta_report"] = report
        picture = contact_sheet(scores, facts, task, title) if scores.pictures else None
        written = write_scores(output / "scores.json", record, output / "sheet.png", picture)
        written += write_matrix(output / "confusion.png", scores, facts, title)
        about = [intervals.line(scores, task.score)] if scores.per_image else []
        about += report_lines(report, scores, task) if report else []
        say(*lines(scores.numbers, facts, intervals.bounds), *about, extent(protocol), written)
    return record
