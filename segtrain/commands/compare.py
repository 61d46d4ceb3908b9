"""`segtrain compare`: scores of several runs on one split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segtrain.checkpoint.reading import Checkpoint, read
from segtrain.checkpoint.restore import build_from
from segtrain.commands.dataset import data_of
from segtrain.commands.parts import same_classes
from segtrain.commands.prepare import prepare
from segtrain.commands.results import comparison_sheet, write_scores
from segtrain.commands.scored import scored_splits
from segtrain.commands.scoring import check_score, score_split, scoring_of
from segtrain.errors import ConfigError
from segtrain.evaluate import comparison as comparing
from segtrain.evaluate.table import extent
from segtrain.predictor.inference import inference_of
from segtrain.run.storage import probe, storage
from segtrain.task import task_of
from segtrain.text import say


def compare(config: dict, stop) -> dict:
    """Scores several runs on one split. Prints a table, writes it to compare.json with a picture of the masks
    of a few images side by side, and returns what compare.json holds."""
    if not config["runs"]:
        raise ConfigError("runs is empty; name the folders of the runs: runs=[outputs/first,outputs/second]")
    device = prepare(config)
    # All checkpoints are read first: a training may remove one while another run is scored.
    found = {run: read(run, config["checkpoint"], key="runs") for run in config["runs"]}
    first = found[config["runs"][0]].description
    task = task_of(first)
    data = data_of(config, config["runs"][0], first, task.target)
    splits = scored_splits(config, data, {run: checkpoint.description for run, checkpoint in found.items()})
    names = list(splits)
    output = Path(config["output"])
    with storage(output):
        output.mkdir(parents=True, exist_ok=True)
    probe(output, 1 << 20)
    inference = inference_of(config)
    entries = [
        _entry(
            config,
            inference,
            run,
            found[run],
            task,
            data.facts,
            splits,
            device,
            stop,
        )
        for run in found
    ]
    scored = entries[0].scores
    protocol = {**scored.protocol, "split": names[0], "data": config["data"]}
    if len(names) > 1:
        protocol["splits"] = {name: len(split) for name, split in splits.items()}
    apart, said = comparing.differences(entries, task.score, task.lower_is_better, names)
    said += comparing.notes(entries)
    record = {"runs": [entry.record() for entry in entries], "protocol": protocol}
    record |= {"differences": apart, "seeds": comparing.seeds_record(entries, task.score)}
    picture = None
    if scored.pictures:
        title = f"{config['data']['name']} {names[0]}, {protocol['images']} images"
        picture = comparison_sheet(entries, data.facts, task, title)
    written = write_scores(output / "compare.json", record, output / "compare.png", picture)
    table = comparing.lines(entries, task.score, task.lower_is_better, names[0])
    say(*table, *said, extent(protocol), written)
    return record


def _entry(
    config: dict, inference, run: str, checkpoint: Checkpoint, task, facts, splits, device, stop
) -> comparing.Entry:
    """The scores of one run on each split. ConfigError if its task is not that of the first run, or its
    classes are not those of the data."""
    (model, own), description = build_from(checkpoint), checkpoint.description
    if description["config"]["task"]["name"] != task.name:
        raise ConfigError(
            f"runs: {run} was trained for task={description['config']['task']['name']}, the first one for "
            f"{task.name}"
        )
    same_classes(own, facts, run, task.target)
    scoring = scoring_of(config, task_of(description), own, inference)
    check_score(scoring)
    model.to(device)
    kept, by_split, intervals = scoring.resampled_metrics(config["bootstrap"]), {}, []
    for name, split in splits.items():
        scores = score_split(scoring, model, split, device, stop, f"evaluating {run} on {name}", kept=kept)
        intervals.append(scoring.intervals(scores, split, config["bootstrap"]))
        by_split[name] = replace(scores, per_image={})  # which many runs would not leave room for
    first, *others = by_split
    parameters = sum(parameter.numel() for parameter in model.parameters())
    origin = comparing.origin_of(description["config"])
    return comparing.Entry(
        run,
        description["config"]["model"]["name"],
        origin,
        description["step"],
        parameters,
        by_split[first],
        {name: by_split[name] for name in others},
        config=description["config"],
        validated=description.get("protocol") or {},
        intervals=intervals,
    )
