"""Evaluations and checkpoints of a training run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from segtrain import checkpoint as checkpoints
from segtrain import ranks
from segtrain.commands.parts import Parts
from segtrain.commands.results import contact_sheet
from segtrain.commands.scoring import Scoring, score_split, thresholds_in
from segtrain.errors import Interrupted
from segtrain.evaluate.loop import Scores
from segtrain.evaluate.table import as_record, extent, flat_scores, lines
from segtrain.ranks.sharded import unsharded
from segtrain.report.services import service
from segtrain.report.trackers import Events
from segtrain.run.own import check_own
from segtrain.run.storage import probe, storage, write_atomic
from segtrain.settings import Trainer
from segtrain.train.random_state import random_state

RESAMPLES = 1000
"""Of the validation images, for the interval of the score."""


class RunOutput:
    """The callbacks of the loop, `evaluate` and `save`, for one run folder; folder None is a dry run."""

    def __init__(
        self,
        config,
        folder,
        parts: Parts,
        scoring: Scoring,
        split,
        device,
        events: Events,
        stop,
        settings: Trainer,
        samples: dict | None,
    ):
        self.config, self.folder, self.parts, self.scoring, self.split = config, folder, parts, scoring, split
        self.device, self.events, self.stop, self.settings = device, events, stop, settings
        self.samples = samples
        # Of a checkpoint between two evaluations: those of the last one, before a resume too.
        self.thresholds = (parts.saved or {}).get("thresholds") if parts.initial is None else None

    def evaluate(self, state) -> Scores | None:
        """Scores of the validation split, printed, logged and drawn; None if a signal interrupted the
        evaluation, which is then still due."""
        if self.folder is not None and ranks.from_main(lambda: not checkpoints.has_checkpoint(self.folder)):
            self.save(state, None)  # so that an error in the first evaluation loses no training
        try:
            few = 1 if self.folder is None else None
            with unsharded(state.served):
                kept = self.scoring.resampled_metrics(RESAMPLES)
                scores = score_split(
                    self.scoring, state.served, self.split, self.device, self.stop, "evaluating", few, kept
                )
        except Interrupted:
            return None
        numbers = scores.numbers
        if self.parts.task.with_thresholds is not None:
            self.thresholds = thresholds_in(numbers)
        self.events.say(f"step {state.step}, validation: {extent(scores.protocol)}")
        self.events.table(lines(numbers, self.parts.facts))
        self.events.log(state.step, {**flat_scores(numbers, self.parts.facts), **self._interval(scores)})
        if scores.pictures:
            title = f"{self.config['model']['name']} on {self.config['data']['name']}, step {state.step}"
            picture = contact_sheet(scores, self.parts.facts, self.parts.task, title)
            self.events.picture(state.step, "val/sheet", np.asarray(picture))
            if self.folder and ranks.is_main():
                self._save_picture(picture)
        return scores

    def _interval(self, scores: Scores) -> dict[str, float]:
        """{"val/miou/low": …, "val/miou/high": …}, the 95 % interval of the score that picks the best
        checkpoint; {} where it has none."""
        if not ranks.is_main():
            return {}
        key = self.parts.task.score
        bounds = self.scoring.intervals(scores, self.split, RESAMPLES).bounds.get(key)
        return {} if bounds is None else {f"val/{key}/low": bounds[0], f"val/{key}/high": bounds[1]}

    def _save_picture(self, picture) -> None:
        report, data = self.folder / "report", io.BytesIO()
        picture.save(data, "png")
        check_own(report, folder=True)
        with storage(report):
            report.mkdir(exist_ok=True)
        write_atomic(report / "validation.png", data.getvalue())

    def save(self, state, scores) -> None:
        """Writes a checkpoint, updates the links `last` and `best`, and removes old checkpoints."""
        if self.folder is None:
            return
        score = None if scores is None else scores.value(self.parts.task.score)
        sign = -1 if self.parts.task.lower_is_better else 1
        better = score is not None and (state.best is None or sign * score > sign * state.best)
        if score is not None:  # without one, there is no sign that the network gets no better
            state.worse = 0 if better else state.worse + 1
        if better:
            state.best = score
        description = {
            "config": self.config,
            "facts": self.parts.facts.plain(),
            "task": self.parts.task.name,
            "step": state.step,
            "scores": None if scores is None else as_record(scores, self.parts.facts),
            "protocol": None if scores is None else scores.protocol,
            "samples": self.samples,
            "thresholds": self.thresholds,
        }
        weights, plain = state.weights(), state.plain()
        plain["random"]["ranks"] = ranks.all_gather(random_state(), ranks.LONG_S)[1:]

        def write() -> None:
            checkpoints.save(self.folder, state.step, weights, plain, description)
            checkpoints.link(self.folder, "last", state.step)
            if better:
                checkpoints.link(self.folder, "best", state.step)
            checkpoints.prune(self.folder, self.settings.keep_checkpoints)

        ranks.from_main(write)


def events_of(config, folder: Path | None, state, steps: int) -> Events:
    """The sinks of a run; those of ranks above 0 write no file."""
    own = folder if ranks.is_main() else None
    return Events(own, state.step, steps, state.evaluation_due, service(config["tracker"], own, config))


def result_of(state, scores, folder: Path | None, parts: Parts) -> dict:
    """What a training returns: the last step, its scores that are plain numbers (of this call, else of the
    last checkpoint), and the name of the score that selects the best checkpoint."""
    task = parts.task
    numbers = {} if scores is None else {key: scores.value(key) for key in scores.numbers}
    if scores is None and folder is not None:
        there = parts.source is not None and parts.source == folder / "checkpoints" / str(state.step)
        last = parts.saved if there else checkpoints.describe(checkpoints.find(folder, "last"))
        numbers = last["scores"] or {}
    plain = {f"val/{name}": value for name, value in numbers.items() if isinstance(value, (int, float))}
    return {
        "step": state.step,
        **plain,
        "score": f"val/{task.score}",
        "lower_is_better": task.lower_is_better,
    }


def about(config, parts: Parts, num_train: int, num_val: int) -> list[str]:
    """Summary lines about the network and the data."""
    count = sum(p.numel() for p in parts.model.parameters())
    return [
        f"model     {config['model']['name']}, {count:,} parameters; {parts.model.weights_report}",
        f"data      {config['data']['name']}: {num_train} train, {num_val} val; "
        f"{parts.facts.num_classes or 'no'} "
        f"classes",
    ]


def _checkpoint_bytes(state) -> int:
    """Estimated size of a checkpoint: the weights, twice that for the optimizer's state, once more with an
    EMA."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state.model.state_dict().values())
    return weights * (3 if state.ema is None else 4)


def check_room(folder: Path, state) -> None:
    """CheckpointError unless the disk has room for a checkpoint."""
    probe(folder, _checkpoint_bytes(state))
