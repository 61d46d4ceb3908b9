"""`segtrain evaluate`: the scores of a checkpoint on a split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from segtrain import checkpoint as checkpoints
from segtrain.build import check
from segtrain.checkpoint.restore import build_from, output_stride_of
from segtrain.commands.parts import as_settled, same_classes
from segtrain.commands.prepare import prepare
from segtrain.commands.scoring import contact_sheet, data_of, score_split, scoring_of, split_of
from segtrain.evaluate.table import as_record, lines
from segtrain.metric import METRIC
from segtrain.run.storage import probe, storage, write_json
from segtrain.settings import PredictorSettings
from segtrain.task import TASK


def evaluate(config: dict, stop) -> dict:
    """Scores of a run's checkpoint on a split, printed and written to scores.json with a contact sheet."""
    device = prepare(config)
    found = checkpoints.find(config["run"], config["checkpoint"])
    model, facts, description = build_from(found, config["model"])
    task = TASK.build(description["config"]["task"])
    config = as_settled(config, description)
    data = data_of(config, config["run"], description)
    same_classes(facts, data.facts, config["run"])
    split = split_of(data, config["split"])
    metric = METRIC.build(
        {"name": task.metric}, num_classes=facts.num_classes, ignore_index=facts.ignore_index
    )
    scoring = scoring_of(config, task, facts, metric)
    output = Path(
        config["output"] or Path(config["run"]) / "evaluate" / _name_of_scores(config, model, description)
    )
    with storage(output):
        output.mkdir(parents=True, exist_ok=True)
    probe(output, 1 << 20)
    scores = score_split(scoring, model.to(device), split, device, stop, f"evaluating {config['split']}")
    # Rates as they are at this output stride.
    used = {
        key: getattr(getattr(model, "recipe", None), key, None) or value
        for key, value in config["model"].items()
    }
    made = {
        "split": config["split"],
        "checkpoint": description["step"],
        "data": config["data"],
        "model": used,
    }
    protocol = {**scores.protocol, **made}
    record = as_record(replace(scores, protocol=protocol), facts)
    title = (
        f"{config['model']['name']} on {config['data']['name']} {config['split']}, step {description['step']}"
    )
    picture = contact_sheet(scores, facts, task, title) if scores.pictures else None
    written = write_scores(output / "scores.json", record, output / "sheet.png", picture)
    print("\n".join([*lines(scores.numbers, facts), written]))
    return record


def write_scores(path: Path, record: dict, picture_path: Path, picture) -> str:
    """Writes both, and gives the line that says so. Without a picture an earlier one goes: it shows other
    scores."""
    with storage(picture_path):
        picture_path.unlink(missing_ok=True)
        if picture is not None:
            picture.save(picture_path)
    write_json(path, record)
    return f"written   {path}" + ("" if picture is None else f", {picture_path}")


def _name_of_scores(config: Mapping, model: nn.Module, description: Mapping) -> str:
    """val-1000-flip-os8-crf-5b0a9c: the split, the step, and what makes these scores others than those of the
    training: in a word each, and a hash of what the words leave open."""
    words = [config["split"], str(description["step"]), *config["tta"]]
    stride, settings = output_stride_of(model), PredictorSettings(**config["predictor"])
    if stride != description["config"]["model"].get("output_stride", stride):
        words.append(f"os{stride}")
    words += [name for name in ("boxes", "ensemble", "crf") if getattr(settings, name) is not None]
    left_open = json.dumps(_left_open(config, description["config"]), sort_keys=True)
    return "-".join(
        [*words, *([] if left_open == "{}" else [hashlib.sha256(left_open.encode()).hexdigest()[:6]])]
    )


def _left_open(config: Mapping, saved: Mapping) -> dict:
    """What changes scores, is not as the training had it, and has no word of its own: {"predictor": {"tile":
    5}}."""
    own = {name: saved.get(name) or {} for name in ("data", "model", "predictor", "evaluate", "tta")}
    # Words name the views, and each of those that the training did without has its defaults.
    own["tta"] = {view: own["tta"].get(view, {}) for view in config["tta"]}
    for name in ("predictor", "evaluate"):
        own[name] = {key: value for key, value in own[name].items() if key in config[name]}
    before = check("evaluate", {"run": config["run"], **own})
    worded = {
        "model": ("output_stride",),
        "predictor": ("boxes",),
        "evaluate": ("batch_size", "workers", "pictures"),
    }
    changed = {}
    for name in own:
        # As JSON has them: a tuple is a list, and every key a text.
        here, there = (json.loads(json.dumps(one[name])) for one in (config, before))
        other = {
            key: value
            for key, value in here.items()
            if key not in worded.get(name, ()) and value != there.get(key)
        }
        changed.update({name: other} if other else {})
    return changed
