"""`segtrain score`: the scores of predicted masks, whatever program wrote them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segtrain.commands.dataset import split_of
from segtrain.commands.metrics import built_metrics, chosen_metrics, resampled_metrics
from segtrain.commands.predicted_masks import needs_of, pairs_of, scores_of
from segtrain.data import DATA
from segtrain.evaluate import conventions
from segtrain.evaluate.interval import intervals
from segtrain.evaluate.loop import warn_of_no_label
from segtrain.evaluate.rules import protocol_of, rules_of
from segtrain.evaluate.table import as_record, lines
from segtrain.evaluate.units import units_of
from segtrain.run.storage import storage, write_json
from segtrain.settings import EvaluateSettings
from segtrain.task import TASK
from segtrain.text import count, say


def score(config: dict, stop) -> dict:
    """Scores the predicted masks of a folder against a split. Prints the scores, writes them to scores.json
    if asked for, and returns what scores.json holds."""
    task = TASK.build({"name": "semantic"})
    data = DATA.build(config["data"], target=task.target)
    split, facts = split_of(data, config["split"]), data.facts
    compared = config["protocol"] == "all"
    settings = EvaluateSettings(
        protocol="default" if compared else config["protocol"], absent=config["absent"]
    )
    rules = rules_of(settings, config["data"])
    chosen = chosen_metrics(config["metric"], rules, task)
    metrics = built_metrics(chosen, facts, rules.absent or settings.absent, facts.num_classes + 1)
    tally = conventions.Conventions(facts) if compared else None
    pairs = pairs_of(config, split, facts, "instances" in needs_of(metrics), stop)
    kept = resampled_metrics(metrics, config["bootstrap"])
    scores, pixels = scores_of((one.resized(rules.short_side) for one in pairs), metrics, tally, kept)
    doubt = intervals(metrics, scores, units_of(split), config["bootstrap"])
    warn_of_no_label(len(split), pixels)
    protocol = {
        "images": len(split),
        "pixels": pixels,
        "resolution": "native",
        **protocol_of(rules, settings),
        "ignore_index": facts.ignore_index,
        "metric": chosen,
        **{key: config[key] for key in ("predictions", "ids", "split", "data")},
    }
    record = as_record(replace(scores, protocol=protocol), facts)
    record["interval"] = doubt.record(scores, facts)
    images, labelled = count(len(split), "image"), count(pixels, "labelled pixel")
    about = [doubt.line(scores, task.score)] if kept else []
    say(*lines(scores.numbers, facts, doubt.bounds), *about)
    say(f"scored    {images} of {config['split']}, {labelled}")
    if tally is not None:
        rows = tally.rows()
        record["conventions"] = conventions.as_record(rows)
        say("", *conventions.lines(rows))
    if config["output"]:
        path = Path(config["output"]) / "scores.json"
        with storage(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
        say(f"written   {path}")
    return record
