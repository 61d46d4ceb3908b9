"""`segtrain compare`: scores of several runs on one split."""

from __future__ import annotations

from pathlib import Path

from segtrain.checkpoint.reading import Checkpoint, read
from segtrain.checkpoint.restore import build_from
from segtrain.commands.evaluate import write_scores
from segtrain.commands.parts import same_classes
from segtrain.commands.prepare import prepare
from segtrain.commands.scored import scored_split, trained_on
from segtrain.commands.scoring import check_score, data_of, prediction_of, score_split, scoring_of
from segtrain.errors import ConfigError
from segtrain.evaluate import comparison as comparing
from segtrain.evaluate.table import extent
from segtrain.report.sheet import comparison
from segtrain.run.storage import probe, storage
from segtrain.sample import Facts
from segtrain.task import TASK
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
    task = TASK.build(first["config"]["task"])
    data = data_of(config, config["runs"][0], first, task.target)
    chosen = scored_split(config, data, first, config["runs"][0])
    split, config = chosen.split, {**config, "split": chosen.name}
    about = list(chosen.lines)
    for run in list(found)[1:]:
        about += trained_on(chosen.name, split, found[run].description, run)
    if about:
        say(*about)
    output = Path(config["output"])
    with storage(output):
        output.mkdir(parents=True, exist_ok=True)
    probe(output, 1 << 20)
    prediction = prediction_of(config)
    entries = [
        _entry(
            config,
            prediction,
            run,
            found[run],
            task,
            data.facts,
            split,
            device,
            stop,
        )
        for run in found
    ]
    scored = entries[0].scores
    protocol = {**scored.protocol, "split": config["split"], "data": config["data"]}
    record = {"runs": [entry.record() for entry in entries], "protocol": protocol}
    picture = None
    if scored.pictures:
        title = f"{config['data']['name']} {config['split']}, {protocol['images']} images"
        rows = [
            (image, target, *(entry.scores.pictures[i][2] for entry in entries))
            for i, (image, target, _) in enumerate(scored.pictures)
        ]
        picture = comparison(
            rows, [entry.heads(task.score) for entry in entries], data.facts, task.picture, title
        )
    written = write_scores(output / "compare.json", record, output / "compare.png", picture)
    say(*comparing.lines(entries, task.score, task.lower_is_better), extent(protocol), written)
    return record


def _entry(
    config: dict, prediction, run: str, checkpoint: Checkpoint, task, facts: Facts, split, device, stop
) -> comparing.Entry:
    """The scores of one run. ConfigError if its task is not that of the first run, or its classes are not
    those of the data."""
    (model, own), description = build_from(checkpoint), checkpoint.description
    if description["config"]["task"]["name"] != task.name:
        raise ConfigError(
            f"runs: {run} was trained for task={description['config']['task']['name']}, the first one for "
            f"{task.name}"
        )
    same_classes(own, facts, run)
    scoring = scoring_of(config, task, own, prediction)
    check_score(scoring)
    scores = score_split(scoring, model.to(device), split, device, stop, f"evaluating {run}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    origin = comparing.origin_of(description["config"])
    return comparing.Entry(
        run, description["config"]["model"]["name"], origin, description["step"], parameters, scores
    )
